"""What bwrap is told for one job: the recipe, as a pure function.

The options travel by descriptor and not on the command line, where any user of the machine could
read the job's environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.node_daemon.runtime.rootfs import JOB_UID, JOB_USER, Rootfs
from services.node_daemon.shim_parked import SECCOMP_FD, STATUS_FD

# bwrap reads at most 9,000 arguments; the recipe's own and three per variable must fit.
ENVIRONMENT_MAX = 2500
_TMP_BYTES_MIN = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What differs from job to job. `scratch_bytes` limits /tmp and /dev/shm, each."""

    workspace: Path
    scratch_bytes: int
    environment: Mapping[str, str]
    devices: tuple[str, ...] = ()
    seccomp: bool = True


def options(rootfs: Rootfs, sandbox: Sandbox) -> list[str]:
    """bwrap's options; the program and its arguments come after them."""
    scratch = str(max(sandbox.scratch_bytes, _TMP_BYTES_MIN))
    given = [
        "--unshare-all", "--unshare-user", "--disable-userns",
        "--uid", str(JOB_UID), "--gid", str(JOB_UID), "--hostname", "job",
        "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv",
        "--ro-bind", str(rootfs.folder), "/",
    ]  # fmt: skip
    for source, target in rootfs.binds:
        given += ["--ro-bind", source, target]
    given += ["--proc", "/proc", "--dev", "/dev"]
    for device in sandbox.devices:
        given += ["--dev-bind", device, device]
    given += ["--size", scratch, "--tmpfs", "/dev/shm"]
    given += ["--size", scratch, "--tmpfs", "/tmp"]
    given += ["--bind", str(sandbox.workspace), "/workspace", "--chdir", "/workspace"]
    given += ["--json-status-fd", str(STATUS_FD)]
    if sandbox.seccomp:
        given += ["--seccomp", str(SECCOMP_FD)]
    for name, value in _environment(rootfs, sandbox.environment):
        given += ["--setenv", name, value]
    return given


def _environment(rootfs: Rootfs, given: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """The job's own variables win. Python writes through, so that live logs are live."""
    basic = {
        "PATH": rootfs.path,
        "HOME": "/workspace",
        "USER": JOB_USER,
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "PYTHONUNBUFFERED": "1",
    }
    return {**basic, **given}.items()
