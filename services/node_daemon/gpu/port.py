"""The Gpu port: which GPUs this machine has, and which of its device files belong to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from libs.errors import FailedPrecondition


class GpuUnavailable(FailedPrecondition):
    """The source of GPUs that was configured does not work on this machine."""

    reason = "NODE_GPU_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the grid sees it. `name` of a simulated one ends with "(simulated)".

    `devices` are the files a sandboxed job needs for it; empty for a simulated one.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int
    vendor: str
    simulated: bool
    driver_version: str = ""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One GPU at one moment. None where the driver does not tell."""

    index: int
    memory_used_bytes: int
    utilisation: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None


class Gpus(Protocol):
    """A source of GPUs. Methods block for some milliseconds at most."""

    name: str
    simulated: bool

    def open(self) -> None:
        """Raises GpuUnavailable, with what to do, when the source does not work here."""

    def inventory(self) -> Sequence[Gpu]:
        """All GPUs, by index; the same for as long as the daemon runs."""

    def sample(self) -> Sequence[GpuSample]:
        """How they are used now."""

    def close(self) -> None: ...
