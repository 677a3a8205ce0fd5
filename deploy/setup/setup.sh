#!/bin/sh
# Makes the machine and this checkout ready: Debian packages, .venv, generated code.
# Runs again in well under a second when nothing changed. See --help.
set -eu

usage() {
    cat <<'TEXT'
Usage: deploy/setup/setup.sh [--runtime | --dev] [--tests] [--help]

  --runtime  what `make up` needs (default)
  --dev      also what `make check` needs: linters, type checkers, test runner
  --tests    --dev plus the Debian packages that only tests use (a Docker engine)

It installs missing Debian packages when run as root, and otherwise names them.
It then makes .venv with Python 3.11 from the hash-locked files in requirements/,
puts the checkout on its path and compiles protos/ into libs/pb.
Nothing outside .venv, libs/pb and build/ is changed in the checkout.
TEXT
}

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

tier=runtime
tests=no
for argument in "$@"; do
    case "$argument" in
        --runtime) tier=runtime ;;
        --dev) tier=dev ;;
        --tests) tier=dev; tests=yes ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; die "unknown option: $argument" ;;
    esac
done

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
# Ordinary users do not have the administrator's folders on their path.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
venv=.venv

# --- Debian packages -----------------------------------------------------------------------

missing=
need() { # command package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

find_python() {
    for candidate in python3.11 python3 /usr/bin/python3.11; do
        # A version manager's shim can be on the path and still refuse to run: ask it.
        "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || continue
        command -v "$candidate"
        return
    done
}

python_can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

find_missing() {
    missing=
    if [ ! -x "$venv/bin/python" ]; then
        python=$(find_python)
        [ -n "$python" ] || missing="$missing python3.11"
        { [ -n "$python" ] && python_can_make_venv "$python"; } || missing="$missing python3.11-venv"
    fi
    need bwrap bubblewrap
    need mkfs.ext4 e2fsprogs
    need unshare util-linux
    need curl curl
    need ip iproute2
    need jq jq
    [ -s /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
    [ "$tests" = no ] && return
    need dockerd docker.io
    need iptables iptables
    need debootstrap debootstrap
    need busybox busybox-static
}

install_missing() {
    find_missing
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        die "these Debian packages are missing:$missing
setup: install them as root, then run this again:
setup:   apt-get update && apt-get install -y --no-install-recommends$missing"
    fi
    say "installing Debian packages:$missing"
    log=build/apt.log
    export DEBIAN_FRONTEND=noninteractive
    # Where no service manager runs, dockerd stays stopped after its install: tests start their own.
    # shellcheck disable=SC2086
    if ! { apt-get update -q && RUNLEVEL=1 apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "apt-get could not install:$missing (whole output in $log)"
    fi
    find_missing
    [ -z "$missing" ] || die "still missing after the install:$missing"
}

# --- Python --------------------------------------------------------------------------------

fingerprint() { # of everything that decides what .venv holds
    { printf '%s\n' "$root"; cat deploy/setup/setup.sh requirements/uv.txt "requirements/$1.txt"; } | sha256sum | cut -d' ' -f1
}

stamped() { # tier: true when .venv was made from the present lock file of that tier
    [ -f "$venv/.setup-$1" ] && [ "$(cat "$venv/.setup-$1")" = "$(fingerprint "$1")" ]
}

make_venv() {
    # A virtual environment that has the development tools keeps them.
    [ -f "$venv/.setup-dev" ] && tier=dev
    stamped "$tier" && return
    if ! "$venv/bin/python" -c '' 2>/dev/null; then
        python=$(find_python)
        python_can_make_venv "$python" || die "$python cannot make virtual environments; install python3.11-venv"
        say "making $venv with $("$python" --version)"
        rm -rf "$venv"
        "$python" -m venv "$venv"
    fi
    say "installing Python packages (requirements/$tier.txt)"
    log=build/pip.log
    # An install that is cut short must not look finished to the next run.
    for stamp in "$venv"/.setup-*; do if [ -f "$stamp" ]; then echo unfinished >"$stamp"; fi; done
    PIP_CERT="${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}" "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; die "pip could not install uv (whole output in $log)"; }
    VIRTUAL_ENV="$root/$venv" "$venv/bin/uv" pip sync -q --system-certs --require-hashes "requirements/$tier.txt" >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; die "the packages of requirements/$tier.txt could not be installed (whole output in $log)"; }
    printf '%s\n%s\n' "$root" "$root/libs/pb" >"$venv/lib/python3.11/site-packages/junglegrid_roots.pth"
    fingerprint runtime >"$venv/.setup-runtime"
    if [ "$tier" = dev ]; then fingerprint dev >"$venv/.setup-dev"; fi
}

mkdir -p build
if [ -z "${SETUP_LOCKED:-}" ] && command -v flock >/dev/null 2>&1; then
    # Two set-ups of one checkout at once would trip over each other.
    SETUP_LOCKED=1 exec flock build/setup.lock "$root/deploy/setup/setup.sh" "$@"
fi
install_missing
make_venv
"$venv/bin/python" deploy/proto/build.py
