"""The read-only root that sandboxed jobs see: the least of the host, and the daemon's own Python.

It is a folder of empty mount points, links and made-up files in /etc. Where the daemon may mount,
the host's /usr and the Python prefix are bound into it once, at start: the slot's user could not
reach a Python that lies in somebody's home, and one recursive bind is all that bwrap then has to
do per job. Where it may not, bwrap is told to bind the two itself.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from libs.errors import FailedPrecondition
from services.node_daemon import loopfs, syscalls

JOB_UID, JOB_USER = 1000, "job"
_TOOLS = "/opt/junglegrid/bin"
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_FOLDERS = ("dev", "etc", "opt/junglegrid/bin", "proc", "root", "run", "tmp", "usr", "var/tmp",
            "workspace")  # fmt: skip
_ETC = {
    "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\n"
    f"{JOB_USER}:x:{JOB_UID}:{JOB_UID}:job:/workspace:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": f"root:x:0:\n{JOB_USER}:x:{JOB_UID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "hostname": "job\n",
    "resolv.conf": "# A job has no network.\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


class UnusablePython(FailedPrecondition):
    """The daemon's interpreter cannot be offered to jobs."""

    reason = "NODE_PYTHON_UNUSABLE"


@dataclass(frozen=True, slots=True)
class Rootfs:
    """`binds` are (host path, path inside) that are not already mounted below `folder`."""

    folder: Path
    python: Path
    binds: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        """PATH inside: our links named python and python3 come first."""
        return f"{_TOOLS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build(folder: Path, *, mount: bool) -> Rootfs:
    """Makes the root below `folder`, or takes over the one a former daemon mounted there."""
    prefix, python = find_python()
    _make_tree(folder, python)
    sources = _sources(prefix)
    targets = [_folder(folder, str(source.relative_to("/"))) for source in sources]
    if not mount:
        return Rootfs(folder, python, tuple((str(path), str(path)) for path in sources))
    present = loopfs.mounted_below(folder)
    for source, target in zip(sources, targets, strict=True):
        if str(target) not in present:
            _bind(source, target)
    return Rootfs(folder, python, ())


def remove(folder: Path) -> None:
    """Unmounts what `build` bound. Running jobs keep theirs, in their own namespaces."""
    loopfs.unmount_all(folder)


def find_python() -> tuple[Path, Path]:
    """The base interpreter's prefix and binary, behind any virtual environment.

    Raises UnusablePython when other users may not read it: a job runs as one of them.
    """
    prefix = Path(sys.base_prefix).resolve()
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = prefix / "bin" / name
    library = prefix / "lib" / name / "os.py"
    for path, bits in ((python, stat.S_IXOTH | stat.S_IROTH), (library, stat.S_IROTH)):
        if not path.exists() or path.stat().st_mode & bits != bits:
            raise UnusablePython(
                f"{path} is missing or not readable for other users; run the daemon with a Python "
                f"that is (chmod -R o+rX {prefix})"
            )
    return prefix, python


def _sources(prefix: Path) -> list[Path]:
    """Host folders to show. On a machine without a merged /usr, /bin and the like are real ones."""
    real = [Path("/", name) for name in _MERGED]
    found = [Path("/usr"), *(path for path in real if path.is_dir() and not path.is_symlink())]
    if not prefix.is_relative_to("/usr"):
        found.append(prefix)
    return found


def _make_tree(folder: Path, python: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in _FOLDERS:
        _folder(folder, name)
    for name in _MERGED:
        host, ours = Path("/", name), folder / name
        if host.is_symlink():
            _link(os.readlink(host).lstrip("/"), ours)
        elif host.is_dir():
            _folder(folder, name)
    for name, text in _ETC.items():
        (folder / "etc" / name).write_text(text)
    _copy_lookups(folder / "etc")
    for name in ("python", "python3", python.name):
        _link(str(python), folder / _TOOLS.lstrip("/") / name)


def _folder(base: Path, name: str) -> Path:
    """Makes each folder on the way, open for all whatever the umask; mount points stay."""
    path = base
    for part in Path(name).parts:
        path = path / part
        if not path.is_dir():
            path.mkdir()
            path.chmod(0o755)
    return path


def _copy_lookups(etc: Path) -> None:
    """The linker's cache, and the links that Debian puts between /usr/bin and the real programs."""
    cache = Path("/etc/ld.so.cache")
    if cache.exists():
        (etc / cache.name).write_bytes(cache.read_bytes())
    alternatives = etc / "alternatives"
    alternatives.mkdir(exist_ok=True)
    host = Path("/etc/alternatives")
    for entry in host.iterdir() if host.is_dir() else ():
        if entry.is_symlink():
            _link(os.readlink(entry), alternatives / entry.name)


def _link(target: str, path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    path.symlink_to(target)


def _bind(source: Path, target: Path) -> None:
    flags = syscalls.MS_BIND | syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount(str(source), str(target), "", syscalls.MS_BIND)
    syscalls.mount("none", str(target), "", flags | syscalls.MS_REMOUNT)
