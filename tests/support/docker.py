"""A Docker engine of our own for tests, and an image made from this machine.

The engine gets its own socket, data and state below one temporary folder, so it neither needs nor
touches an engine that is installed as a service. No bridge and no firewall rules: containers in
these tests have no network. It runs on plain root without systemd, on any kind of control groups.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

IMAGE = "python:3.11"
_IMAGE_FORMAT = 1  # raise it when what is in the image changes
_APPLETS = ("sh", "cat", "echo", "env", "id", "ls", "mount", "ps", "sleep", "true", "yes", "head")
_SKIPPED = {"test", "tests", "site-packages", "__pycache__", "idlelib", "tkinter", "ensurepip",
            "lib2to3", "turtledemo", "pydoc_data"}  # fmt: skip
_START_SECONDS = 30.0


def missing() -> str:
    """What this machine lacks for an engine; empty when nothing."""
    if os.geteuid() != 0:
        return "an engine can only be started as root"
    lacking = [name for name in ("dockerd", "containerd", "runc", "busybox") if not _which(name)]
    return (
        f"not installed: {', '.join(lacking)} (apt install docker.io busybox-static)"
        if lacking
        else ""
    )


@dataclass(frozen=True)
class Engine:
    """A running engine; `socket` is a path."""

    socket: str
    process: subprocess.Popen[bytes]

    def command(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Runs the docker client against this engine and returns what it printed."""
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *arguments],
            input=stdin, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"docker {arguments[0]}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode()


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """Starts an engine with the test image in it; stops it, by pid, at the end."""
    folder = Path(tempfile.mkdtemp(prefix="jg-docker-"))
    running = _start(folder)
    try:
        archive = image_archive()
        running.command(
            "import", "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin", str(archive), IMAGE
        )
        yield running
    finally:
        _stop(running, folder)


def _start(folder: Path) -> Engine:
    socket = str(folder / "d.sock")
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [
                str(_which("dockerd")), "-H", f"unix://{socket}",
                "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"),
                "--pidfile", str(folder / "pid"), "--bridge", "none", "--iptables=false",
                "--ip6tables=false", "--ip-masq=false", "--userland-proxy=false",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
    running = Engine(socket, process)
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            running.command("version")
        except RuntimeError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                _stop(running, folder, keep_log=True)
                raise RuntimeError(f"dockerd did not start; see {folder}/log: {error}") from error
            time.sleep(0.05)
        else:
            return running


def _stop(running: Engine, folder: Path, *, keep_log: bool = False) -> None:
    process = running.process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    _end_leftovers(folder)
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point = line.split()[4]
        if point.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)
    if not keep_log:
        shutil.rmtree(folder, ignore_errors=True)


def _end_leftovers(folder: Path) -> None:
    """An engine that was killed leaves containerd and its helpers; they name our folder."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"{folder}/".encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


def image_archive() -> Path:
    """A root filesystem with a shell and this machine's Python; made once per machine."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jungle-grid"
    path = cache / f"image-{_IMAGE_FORMAT}-python-{version}.tar"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        with tarfile.open(temporary, "w") as archive:
            _fill(archive)
        temporary.rename(path)
    return path


def _fill(archive: tarfile.TarFile) -> None:
    added: set[str] = set()
    for name in ("bin", "dev", "etc", "lib", "lib64", "proc", "root", "sys", "tmp", "usr/bin",
                 "usr/local/bin", "workspace"):  # fmt: skip
        _add_folder(archive, name, added)
    _add_text(archive, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    archive.add(str(_which("busybox")), "bin/busybox")
    for name in _APPLETS:
        _add_link(archive, f"bin/{name}", "busybox")
    prefix = Path(sys.base_prefix).resolve()
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = prefix / "bin" / name
    files = [python, *_library(prefix / "lib" / name)]
    for path in [*files, *_linked([python, *(file for file in files if file.suffix == ".so")])]:
        _add_file(archive, path, added)
    for link in ("python", "python3"):
        _add_link(archive, f"usr/local/bin/{link}", str(python))


def _library(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        skipped = _SKIPPED.intersection(parts) or parts[0].startswith("config-")
        if not skipped and path.is_file() and "_tkinter" not in path.name:
            found.append(path)
    return found


def _linked(binaries: list[Path]) -> list[Path]:
    """The shared libraries and the loader that the binaries need, at the paths they ask for."""
    done = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, check=True, text=True)
    words = (word for line in done.stdout.splitlines() for word in line.split())
    return sorted({Path(word) for word in words if word.startswith("/") and not word.endswith(":")})


def _add_file(archive: tarfile.TarFile, path: Path, added: set[str]) -> None:
    name = str(path).lstrip("/")
    if name in added:
        return
    added.add(name)
    for parent in reversed(path.parents):
        if str(parent) != "/":
            _add_folder(archive, str(parent).lstrip("/"), added)
    archive.add(os.path.realpath(path), name)


def _add_folder(archive: tarfile.TarFile, name: str, added: set[str]) -> None:
    if name in added:
        return
    added.add(name)
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    archive.addfile(info)


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    archive.addfile(info)


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text), 0o644
    archive.addfile(info, io.BytesIO(text.encode()))


def _which(name: str) -> str | None:
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
