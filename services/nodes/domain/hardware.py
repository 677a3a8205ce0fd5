"""What a node has and what a task needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a node."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    vendor: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class GpuNeed:
    """GPUs that one task needs."""

    count: int
    memory_bytes_min: int
    gpu_type: str
    gpu_class: str
    vendor: str


@dataclass(frozen=True, slots=True)
class Resources:
    """What one task may use; `gpu` None for work without one."""

    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    gpu: GpuNeed | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a node is, as it says itself, after cleaning."""

    gpus: tuple[Gpu, ...] = ()
    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    runtimes: tuple[str, ...] = ()
    isolation: tuple[str, ...] = ()
    daemon_version: str = ""
    slots: int = 0
    simulated: bool = False

    def simulates(self, gpus: tuple[Gpu, ...]) -> bool:
        """What a task with these GPUs gets here is simulated: its runtime, or one of the GPUs."""
        return self.runtimes[:1] == ("simulated",) or any(gpu.simulated for gpu in gpus)
