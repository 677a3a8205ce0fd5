"""What the shim asks of a way to run the program: a sandboxed process, or a container."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from services.node_daemon.shim_parked import Parked

Output = Callable[[int, bytes], None]


class Watcher(Protocol):
    """The shim's loop. `forget` comes before the descriptor is closed: its number may be reused."""

    def watch(self, fd: int, handler: Callable[[], None]) -> None: ...

    def forget(self, fd: int) -> None: ...


class ChildOutcome(NamedTuple):
    """How the program ended. `failed` says why it never ran or was lost (`failed_reason`)."""

    code: int | None
    signal: int | None = None
    oom_killed: bool = False
    memory_peak_bytes: int = 0
    cpu_nanoseconds: int = 0
    failed: str = ""
    failed_reason: str = "start_failed"


class Child(ABC):
    """One program. The shim calls `start` once, then its handlers as descriptors get ready."""

    running = False  # the program has been started
    done = False  # it has ended and all of its output was delivered
    next_moment_ns: int | None = None  # CLOCK_MONOTONIC; `tick` is called then

    @abstractmethod
    def __init__(self, spec: dict[str, Any], output: Output, parked: Parked | None) -> None: ...

    @abstractmethod
    def start(self, watcher: Watcher) -> None:
        """Starts the program and watches it. Raises OSError when it cannot be started."""

    @abstractmethod
    def terminate(self) -> None:
        """Asks the program to end."""

    @abstractmethod
    def kill(self) -> None:
        """Ends every process of the program."""

    @abstractmethod
    def finish(self) -> ChildOutcome:
        """After `done`: no process is left when this returns."""

    def tick(self, now_ns: int) -> None:  # noqa: B027 most have no moments of their own
        """Called on every turn of the loop."""

    def clean(self) -> None:  # noqa: B027 not every child leaves something
        """Removes what outlives the program, after its exit was written."""


def exit_signal(code: int | None) -> int | None:
    """The signal a shell-style exit code tells of."""
    return code - 128 if code is not None and 128 < code <= 192 else None
