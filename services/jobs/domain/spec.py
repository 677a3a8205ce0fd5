"""What a job is: fixed at submit, never changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

WORKSPACE = "/workspace"
ARTIFACTS = "/workspace/artifacts"
INPUTS = "/workspace/inputs"
SCRIPTS = "/workspace/scripts"


@dataclass(frozen=True, slots=True)
class GpuNeed:
    """GPUs that one task needs, all on one node. Hard requirements only."""

    count: int
    memory_bytes_min: int = 0
    gpu_type: str = ""
    gpu_class: str = ""
    vendor: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """Needs of one task."""

    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    gpu: GpuNeed | None = None


@dataclass(frozen=True, slots=True)
class Constraints:
    """Where a job may and would like to run. A price of 0 means no limit."""

    region: str = ""
    region_strict: bool = False
    pool: str = ""
    price_micros_per_hour_max: int = 0
    preferred_gpu_family: str = ""
    avoid_gpu_families: tuple[str, ...] = ()
    optimize_for: str = ""
    priority: str = ""
    latency_priority: str = ""
    cost_priority: str = ""


@dataclass(frozen=True, slots=True)
class Callback:
    """Where the end is told. The bearer token is kept apart, encrypted."""

    url: str
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class InputFile:
    """An uploaded input as it will be mounted."""

    input_id: str
    mount_path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is encrypted at rest and never shown. `repr` shows no value."""

    environment: dict[str, str] = field(default_factory=dict, repr=False)
    callback_token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.environment or self.callback_token)


@dataclass(frozen=True, slots=True)
class Spec:
    """The normalised request, without its secrets.

    `group_id`, `group_index`, `origin` and `external_id` are for gangs and for the other public
    contracts that ride the same engine. `budget_micros` 0 means no budget.
    """

    name: str
    image: str
    workload_type: str
    command: str
    args: tuple[str, ...]
    resources: Resources
    constraints: Constraints
    timeout_seconds: int
    tasks: int = 1
    budget_micros: int = 0
    client_id: str = ""
    inputs: tuple[InputFile, ...] = ()
    expected_artifacts: tuple[str, ...] = ()
    callback: Callback | None = None
    metadata: dict[str, Any] | None = None
    notes: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    group_id: str = ""
    group_index: int = 0
    origin: str = "jungle"
    external_id: str = ""

    @property
    def scripts(self) -> bool:
        """A script was uploaded for it."""
        return any(item.mount_path.startswith(SCRIPTS + "/") for item in self.inputs)
