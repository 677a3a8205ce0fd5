"""Work that waits, nodes that offer, and what is held; pure and synchronous."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

# One GPU weighs as much as this many thousandths of a core when shares are compared.
GPU_WEIGHT_MILLIS = 8_000
SIMULATED = "simulated"
DEFAULT_POOL = "default"
# GPUs of one node are tracked in one 64-bit integer of the row.
GPUS_MAX = 62


class EntryState(StrEnum):
    """Where a job stands in the queue. One row a job, kept for a while after its end."""

    WAITING = "waiting"
    PLACED = "placed"
    STOPPED = "stopped"
    ENDED = "ended"


# A later attempt makes a placed or stopped entry wait again; an ended one never.
MOVES: Mapping[EntryState, frozenset[EntryState]] = {
    EntryState.WAITING: frozenset(
        {EntryState.WAITING, EntryState.PLACED, EntryState.STOPPED, EntryState.ENDED}
    ),
    EntryState.PLACED: frozenset({EntryState.WAITING, EntryState.STOPPED, EntryState.ENDED}),
    EntryState.STOPPED: frozenset({EntryState.WAITING, EntryState.ENDED}),
    EntryState.ENDED: frozenset(),
}


class Mode(StrEnum):
    """What a choice between fitting nodes is made by."""

    COST = "cost"
    SPEED = "speed"
    BALANCED = "balanced"


_BY_PRIORITY = {"low_latency": Mode.SPEED, "low_cost": Mode.COST, "balanced": Mode.BALANCED}


def mode_of(optimize_for: str, priority: str, latency_priority: str, cost_priority: str) -> Mode:
    """The plainest wish wins: `optimize_for`, then `priority`, then which of the two is higher."""
    if optimize_for in ("cost", "speed"):
        return Mode(optimize_for)
    if priority in _BY_PRIORITY:
        return _BY_PRIORITY[priority]
    grades = {"low": -1, "high": 1}
    lean = grades.get(latency_priority, 0) - grades.get(cost_priority, 0)
    return Mode.SPEED if lean > 0 else Mode.COST if lean < 0 else Mode.BALANCED


@dataclass(frozen=True, slots=True)
class Shape:
    """What one task needs and where. Entries of equal shape fit the same nodes, so the planner
    decides per shape. Bytes, thousandths of a core, micro-USD per hour."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    gpu_count: int = 0
    gpu_memory_min: int = 0
    gpu_type: str = ""
    gpu_class: str = ""
    vendor: str = ""
    region: str = ""
    region_strict: bool = False
    pool: str = DEFAULT_POOL
    price_max: int = 0
    preferred_family: str = ""
    avoid_families: tuple[str, ...] = ()
    mode: Mode = Mode.BALANCED
    runtime: str = ""

    @property
    def weight(self) -> int:
        """Share of the grid that one task takes, for fairness."""
        return self.gpu_count * GPU_WEIGHT_MILLIS + self.cpu_millis


@dataclass(frozen=True, slots=True)
class Entry:
    """An attempt that waits for its nodes."""

    workspace_id: str
    job_id: str
    attempt: int
    shape: Shape
    tasks: int
    submitted_time: datetime
    timeout_seconds: int
    reservation_id: str
    avoid: frozenset[str] = frozenset()
    event_seq: int = 0

    @property
    def order(self) -> tuple[datetime, str]:
        """First come first served; the id makes it total."""
        return self.submitted_time, self.job_id


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a node, as its driver names it."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    vendor: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node as it last told. `open` means that it takes new work; `version` rises with every
    change of what is here, and not with what is held."""

    node_id: str
    open: bool
    region: str
    pool: str
    runtimes: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    slots: int
    gpu_price: int
    cpu_price: int
    simulated: bool
    version: int = 1
    event_seq: int = 0

    def simulates(self, gpu_uuids: tuple[str, ...]) -> bool:
        """What a task gets here is simulated: its runtime, or one of its GPUs. Work without a GPU
        is real on a node whose GPUs are not."""
        if self.runtimes[:1] == (SIMULATED,):
            return True
        return any(gpu.simulated for gpu in self.gpus if gpu.uuid in gpu_uuids)


@dataclass(frozen=True, slots=True)
class Hold:
    """Resources of one node that belong to one task until its lease has closed."""

    allocation_id: str
    workspace_id: str
    job_id: str
    attempt: int
    task_index: int
    node_id: str
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    gpu_uuids: tuple[str, ...]
    placed_time: datetime
    end_time: datetime

    @property
    def weight(self) -> int:
        """As Shape.weight."""
        return len(self.gpu_uuids) * GPU_WEIGHT_MILLIS + self.cpu_millis


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision that is not committed yet: the holds of all tasks of an entry."""

    entry: Entry
    holds: tuple[Hold, ...]
    price_micros_per_hour: int
    simulated: bool
    relaxed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """A committed placement: the fact that is told."""

    placement: Placement
    placement_id: str
    seq: int
    time: datetime
    gpus: Mapping[str, tuple[Gpu, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quote:
    """Where work of a shape would run, at what price, and when. Prices of one task."""

    candidates: int = 0
    immediate: bool = False
    price: int = 0
    price_min: int = 0
    price_max: int = 0
    ceiling: int = 0
    gpu: Gpu | None = None
    gpu_family: str = ""
    tier: str = ""
    region: str = ""
    queue_depth: int = 0
    wait_seconds_min: int = 0
    wait_seconds_max: int = 0
    relaxed: tuple[str, ...] = ()
    unavailable_code: str = ""
    unavailable_reason: str = ""
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why an entry is not placed."""

    queued: bool
    position: int = 0
    code: str = ""
    message: str = ""
