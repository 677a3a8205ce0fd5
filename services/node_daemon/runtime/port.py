"""The Runtime port: what the daemon asks of a way to run one attempt.

The order of calls is `prepare` -> (the caller stages files) -> `start` -> `wait` -> `artifacts` and
logs -> `release`. `adopt` is called once, before the first `prepare`, and gives back every attempt
that a former daemon left on this machine: still running, ended, or lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from services.node_daemon.collect import Collection
from services.node_daemon.slots import Slot
from services.node_daemon.spool import LogBatch


class Phase(StrEnum):
    """What `report` is told. All but NOTICE are public phases of a job's execution."""

    CONTAINER_STARTING = "container_starting"
    IMAGE_DOWNLOAD = "image_download"
    RUNTIME_PREPARATION = "runtime_preparation"
    WORKLOAD_EXECUTION = "workload_execution"
    RUNNING = "running"
    NOTICE = "notice"


class ExitReason(StrEnum):
    """Why an attempt is over. The last three are the platform's doing, not the program's."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"
    LEASE_EXPIRED = "lease_expired"
    START_FAILED = "start_failed"
    RUNTIME_LOST = "runtime_lost"


class Report(Protocol):
    """Told about each phase as it begins, and about notices; must not block."""

    def __call__(self, phase: Phase, message: str, details: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class TaskLaunch:
    """One attempt of one task, as the grid granted it.

    `cpu_millis` 1000 is one core, 0 is no limit. `timeout_seconds` 0 is no limit of its own: the
    lease still ends it. `environment` may hold secrets and is never written to disk or shown.
    """

    lease_id: str
    job_id: str
    attempt: int
    task_index: int
    image: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    gpu_indices: tuple[int, ...] = ()
    timeout_seconds: float = 0.0
    pids_max: int = 512
    log_bytes_max: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Staging:
    """The attempt's own workspace before it starts; the job sees `workspace` as /workspace.

    Files put here must be readable by `uid`; plain root-owned 0644 files are.
    """

    workspace: Path
    uid: int
    gid: int

    @property
    def inputs(self) -> Path:
        return self.workspace / "inputs"

    @property
    def scripts(self) -> Path:
        return self.workspace / "scripts"

    @property
    def artifacts(self) -> Path:
        return self.workspace / "artifacts"


@dataclass(frozen=True, slots=True)
class Prepared:
    """An attempt that has its slot but runs nothing yet."""

    launch: TaskLaunch
    staging: Staging
    report: Report = field(repr=False)
    slot: Slot


@dataclass(frozen=True, slots=True)
class Exit:
    """How an attempt ended.

    `signal` is derived from a code of 128 + n, as a shell does: a program that itself exits with
    such a code reads the same. `spool_bytes` is the final length of the spool: the log is sent
    whole when the read offset reaches it. `log_bytes` counts what was kept, `log_bytes_dropped`
    what the job wrote beyond its limit or the disk could not take.
    """

    reason: ExitReason
    code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    oom_killed: bool = False
    message: str = ""
    started_time: datetime | None = None
    finished_time: datetime | None = None
    log_bytes: int = 0
    log_bytes_dropped: int = 0
    stdout_entries: int = 0
    stderr_entries: int = 0
    spool_bytes: int = 0
    memory_peak_bytes: int = 0
    cpu_nanoseconds: int = 0

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> Exit:
        """Reads what the shim wrote to exit.json."""
        known = {name: record[name] for name in _RECORD_FIELDS if name in record}
        return Exit(
            reason=ExitReason(record["reason"]),
            started_time=_time(record.get("started_time_ns")),
            finished_time=_time(record.get("finished_time_ns")),
            **known,
        )


_RECORD_FIELDS = (
    "code", "signal", "timed_out", "oom_killed", "message", "log_bytes", "log_bytes_dropped",
    "stdout_entries", "stderr_entries", "spool_bytes", "memory_peak_bytes", "cpu_nanoseconds",
)  # fmt: skip


def _time(nanoseconds: int | None) -> datetime | None:
    return None if nanoseconds is None else datetime.fromtimestamp(nanoseconds / 1e9, UTC)


class Logs(Protocol):
    """The attempt's spool. Offsets are opaque, rising, and valid across daemon restarts."""

    @property
    def acknowledged(self) -> int:
        """The offset up to which the grid has stored everything; 0 at first."""

    def read(self, offset: int, limit: int = 65536) -> LogBatch:
        """Entries from `offset` on, about `limit` bytes of them; empty when there are none yet."""

    def acknowledge(self, offset: int) -> None:
        """Keeps `offset` for a later daemon. Losing it only makes entries be sent twice."""

    def watch(self, callback: Callable[[], None]) -> None:
        """`callback` runs on the loop when there may be more to read; replaces the former one."""


class Attempt(Protocol):
    """One started attempt; it goes on without this object, which only watches and steers it."""

    lease_id: str
    job_id: str
    attempt: int
    task_index: int
    simulated: bool

    @property
    def logs(self) -> Logs: ...

    def renew(self, deadline_monotonic: float) -> None:
        """The lease holds until `deadline_monotonic` (time.monotonic() seconds)."""

    def stop(self, reason: str, grace_seconds: float) -> None:
        """SIGTERM now, SIGKILL after the grace; `wait` tells the end. Idempotent."""

    async def wait(self) -> Exit:
        """Returns when no process of the attempt is left and its exit is on disk."""

    async def artifacts(self) -> Collection:
        """Opens what may be collected; only after `wait` has returned. Close the collection."""

    async def release(self) -> None:
        """Wipes the workspace and forgets the attempt, logs included. Idempotent."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """One layer between a job and the machine, and whether this machine has it."""

    layer: str
    present: bool
    detail: str


class Runtime(Protocol):
    """A way to run attempts. `prepare` and `start` raise GridErrors with a stable reason."""

    name: str
    simulated: bool

    def describe(self) -> Sequence[Isolation]:
        """The layers, present or missing, as found by `open`."""

    async def open(self) -> None:
        """Probes the machine, sets up what is shared between attempts. Call once, first."""

    async def adopt(self) -> Sequence[Attempt]:
        """Every attempt left on this machine by a former daemon; call before `prepare`."""

    async def prepare(self, launch: TaskLaunch, report: Report) -> Prepared:
        """Takes a slot (and pulls the image); raises when none can be had."""

    async def start(self, prepared: Prepared, deadline_monotonic: float) -> Attempt:
        """Starts the program under a lease that ends at `deadline_monotonic`."""

    async def discard(self, prepared: Prepared) -> None:
        """Gives back what `prepare` took when `start` will not be called."""

    async def close(self) -> None:
        """Leaves running attempts alone; gives back what no attempt uses."""
