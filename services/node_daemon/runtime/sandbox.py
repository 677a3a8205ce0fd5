"""The sandbox runtime: bubblewrap around a program of the host's own /usr and Python.

The image a job names is not used, and the daemon says so in a notice. Layers, from the outside in:
the slot's own user id, control groups, rlimits, namespaces (mount, pid, user, net, ipc, uts,
cgroup), no capabilities, no new privileges, a system-call filter, a size-limited /workspace, a
read-only root. bwrap is one layer; the others do not depend on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libs.errors import FailedPrecondition, InvalidRequest, Unavailable
from services.node_daemon import cgroups, seccomp, syscalls
from services.node_daemon.cgroups import CONTROLLERS, Layout
from services.node_daemon.runtime import rootfs
from services.node_daemon.runtime.attempt import Order, Record, ShimAttempt
from services.node_daemon.runtime.bwrap import ENVIRONMENT_MAX, Sandbox, options
from services.node_daemon.runtime.port import (
    Isolation,
    Phase,
    Prepared,
    Report,
    TaskLaunch,
)
from services.node_daemon.runtime.seats import Seats
from services.node_daemon.runtime.shimmed import ShimHost
from services.node_daemon.slots import Slot

_PROBE = "probe"
# bwrap's outer and inner process count against the job's limit.
_PIDS_OF_BWRAP = 2
_OPEN_FILES_MAX = 65536


class SandboxIncomplete(FailedPrecondition):
    """A layer of isolation is missing here, and running without it was not allowed."""

    reason = "SANDBOX_INCOMPLETE"


class SandboxUnavailable(Unavailable):
    """The sandbox does not work on this machine at all."""

    reason = "SANDBOX_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """`run_folder` must be reachable for every user; it holds mount points, no data.

    `devices` maps a GPU index to the device files a job that holds it may use. `seats_ready` shims
    wait for jobs from the start, up to `seats_kept` after a busy time; each takes some 5 MB.
    """

    run_folder: Path
    cgroup_name: str = "junglegrid"
    insecure: bool = False
    bwrap: str = "bwrap"
    devices: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    seats_ready: int = 3
    seats_kept: int = 8


class SandboxRuntime:
    """See `port.Runtime`."""

    name = "sandbox"
    simulated = False

    def __init__(self, config: SandboxConfig, host: ShimHost) -> None:
        self._config = config
        self._host = host
        self._layers: list[Isolation] = []
        self._rootfs: rootfs.Rootfs | None = None
        self._layout = Layout("none", {}, CONTROLLERS)
        self._seats = Seats(host.zygote, self._layout, host.folder, ready=0, kept=0)
        self._filter = b""
        self._root = os.geteuid() == 0
        self._bwrap = ""

    def describe(self) -> Sequence[Isolation]:
        return tuple(self._layers)

    async def open(self) -> None:
        self._bwrap = shutil.which(self._config.bwrap) or ""
        if not self._bwrap:
            raise SandboxUnavailable("bwrap is not installed; install it (apt install bubblewrap)")
        await asyncio.to_thread(self._set_up)
        self._seats = Seats(
            self._host.zygote, self._layout, self._host.folder,
            ready=self._config.seats_ready, kept=self._config.seats_kept,
        )  # fmt: skip
        self._layers = [*self._found_layers(), await self._probe()]

    async def adopt(self) -> list[ShimAttempt]:
        attempts = await self._host.adopt(self.name, self._forget)
        kept = {attempt.group_name for attempt in attempts}
        await asyncio.to_thread(self._seats.sweep, kept)
        return attempts

    async def prepare(self, launch: TaskLaunch, report: Report) -> Prepared:
        self._refuse_incomplete()
        _check_launch(launch)
        report(Phase.RUNTIME_PREPARATION, "Preparing the sandbox", {"runtime": self.name})
        report(Phase.NOTICE, _notice(launch.image, self._python), {"image_used": False})
        slot, staging = await self._host.workspace(launch.disk_bytes)
        return Prepared(launch, staging, report, slot)

    async def start(self, prepared: Prepared, deadline_monotonic: float) -> ShimAttempt:
        launch, slot = prepared.launch, prepared.slot
        prepared.report(Phase.CONTAINER_STARTING, "Starting the sandbox", {"runtime": self.name})
        attempt = await self._begin(launch, slot, deadline_monotonic)
        if attempt.begun.result():
            prepared.report(Phase.RUNNING, "The program is running", {"runtime": self.name})
        return attempt

    async def discard(self, prepared: Prepared) -> None:
        await asyncio.to_thread(self._host.slots.release, prepared.slot)

    async def close(self) -> None:
        self._seats.close()
        await asyncio.to_thread(self._host.close)
        if self._root and self._rootfs is not None:
            await asyncio.to_thread(rootfs.remove, self._rootfs.folder)

    @property
    def _python(self) -> Path:
        assert self._rootfs is not None
        return self._rootfs.python

    def _set_up(self) -> None:
        self._config.run_folder.mkdir(parents=True, exist_ok=True)
        self._rootfs = rootfs.build(self._config.run_folder / "root", mount=self._root)
        self._host.open()
        with open("/proc/self/mountinfo") as mounts:
            found = cgroups.detect(mounts.read(), self._config.cgroup_name)
        self._layout = cgroups.prepare(found) if self._root else found.without_trees()
        if syscalls.MACHINE in seccomp.ARCHITECTURES:
            self._filter = seccomp.program(syscalls.MACHINE)

    def _found_layers(self) -> list[Isolation]:
        slots = self._host.slots
        missing = self._layout.missing
        return [
            Isolation("slot_user", self._root, "own user id per job" if self._root else "not root"),
            Isolation("seccomp", bool(self._filter), syscalls.MACHINE),
            Isolation("workspace_limit", slots.limited, _joined(slots.kind, slots.detail)),
            *(
                Isolation(f"cgroup_{name}", name not in missing, self._layout.kind)
                for name in CONTROLLERS
            ),
        ]

    async def _probe(self) -> Isolation:
        """Runs `true` in a sandbox once: what the kernel or a policy refuses shows here."""
        folder = self._config.run_folder / _PROBE
        folder.mkdir(exist_ok=True)
        uid = self._host.slots.first_uid
        if self._root:
            os.chown(folder, uid, uid)
        launch = TaskLaunch(
            lease_id=_PROBE, job_id=_PROBE, attempt=1, task_index=0, image="", argv=("true",),
            environment={}, cpu_millis=0, memory_bytes=256 * 1024 * 1024, disk_bytes=0,
        )  # fmt: skip
        detail = await self._try(launch, Slot(-1, uid, 0, folder))
        return Isolation("namespaces", not detail, detail or "bwrap works")

    async def _try(self, launch: TaskLaunch, slot: Slot) -> str:
        """Empty when the program ran to its end; what went wrong otherwise."""
        shutil.rmtree(self._host.attempt_folder(launch.lease_id), ignore_errors=True)
        deadline = asyncio.get_running_loop().time() + 30
        attempt = await self._begin(launch, slot, deadline)
        ended = await attempt.wait()
        attempt.logs.close()
        shutil.rmtree(self._host.attempt_folder(launch.lease_id), ignore_errors=True)
        return "" if ended.code == 0 else ended.message or f"it ended with code {ended.code}"

    async def _begin(self, launch: TaskLaunch, slot: Slot, deadline: float) -> ShimAttempt:
        """Takes a seat that is ready, and orders its successor once the program runs."""
        spec = self._host.spec(launch, self.name, self._child(launch, slot))
        try:
            seat = self._seats.take()
        except OSError as error:
            raise Unavailable(f"no shim could be started on this node: {error}") from error
        record = Record.of(launch, self.name, slot, seat.group)
        order = Order(spec, seat.link, lambda: self._seats.give_back(seat))
        attempt = await self._host.begin(record, order, deadline, self._forget)
        with contextlib.suppress(OSError):  # the next job will make its own seat, or say why not
            self._seats.refill()
        return attempt

    def _child(self, launch: TaskLaunch, slot: Slot) -> dict[str, Any]:
        assert self._rootfs is not None
        devices = [
            path for index in launch.gpu_indices for path in self._config.devices.get(index, ())
        ]
        sandbox = Sandbox(
            workspace=slot.workspace,
            scratch_bytes=launch.memory_bytes // 2,
            environment=launch.environment,
            devices=tuple(dict.fromkeys(devices)),
            seccomp=bool(self._filter),
        )
        return {
            "bwrap": self._bwrap,
            "options": options(self._rootfs, sandbox),
            "argv": list(launch.argv),
            "uid": slot.uid,
            "gid": slot.uid,
            "seccomp": self._filter.hex(),
            "limits": {
                "memory_bytes": launch.memory_bytes,
                "pids_max": launch.pids_max + _PIDS_OF_BWRAP if launch.pids_max else 0,
                "cpu_millis": launch.cpu_millis,
            },
            "rlimits": _rlimits(launch, self._root),
        }

    def _refuse_incomplete(self) -> None:
        missing = [layer for layer in self._layers if not layer.present]
        for layer in missing:
            if layer.layer == "namespaces":
                text = f"no sandbox can be made on this machine: {layer.detail}"
                raise SandboxUnavailable(text)
        if missing and not self._config.insecure:
            names = ", ".join(f"{layer.layer} ({layer.detail})" for layer in missing)
            raise SandboxIncomplete(
                f"this machine lacks {names}; run the daemon as root, or allow it with "
                "--insecure-sandbox on a machine where nothing is worth protecting",
                details={"missing": [layer.layer for layer in missing]},
            )

    async def _forget(self, record: Record) -> None:
        """Nothing outlives a sandbox but its group, and the shim removes that."""


def _check_launch(launch: TaskLaunch) -> None:
    if not launch.argv:
        raise InvalidRequest(
            "the sandbox runtime needs a command: it uses no image, so there is no default one"
        )
    if len(launch.environment) > ENVIRONMENT_MAX:
        raise InvalidRequest(f"at most {ENVIRONMENT_MAX} environment variables can be passed on")
    texts = [*launch.argv, *launch.environment, *launch.environment.values()]
    if any("\0" in text for text in texts):
        raise InvalidRequest("the command and the environment may not contain NUL")
    if any("=" in name or not name for name in launch.environment):
        raise InvalidRequest("an environment variable's name may not be empty or contain '='")


def _rlimits(launch: TaskLaunch, root: bool) -> dict[str, int]:
    """A second fence where the control groups are the first; sizes in bytes."""
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": _OPEN_FILES_MAX,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 8 * 1024 * 1024,
    }
    if launch.disk_bytes:
        limits["RLIMIT_FSIZE"] = launch.disk_bytes
    if launch.pids_max and not root:
        limits["RLIMIT_NPROC"] = launch.pids_max
    return limits


def _notice(image: str, python: Path) -> str:
    return (
        f"The sandbox runtime does not use the image {image!r}: the program runs on this node's "
        f"own read-only system, and python is the node's interpreter ({python.name})"
    )


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)
