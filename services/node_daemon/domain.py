"""The daemon's decisions: what to do with what the grid wants. Pure; the tests are a table.

The node's own list of leases says what is; the grid's list says what shall be. `on_sync` compares
them. Everything else (claiming, starting, sending) is done by others and ends in this list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """How far a lease has come on this node."""

    CLAIMING = "claiming"  # asked for, not granted yet
    STARTING = "starting"  # granted: slot, inputs, start
    RUNNING = "running"
    ENDING = "ending"  # the process is over: log, artifacts, Complete


@dataclass(frozen=True, slots=True)
class Want:
    """A lease as the grid wants it here."""

    lease_id: str
    job_id: str
    attempt: int
    task_index: int
    stop: bool = False
    stop_reason: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    gpu_indices: tuple[int, ...] = ()
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as it is here. `stopping` says that its stop was carried out before."""

    lease_id: str
    stage: Stage
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask for the start."""

    want: Want


@dataclass(frozen=True, slots=True)
class Refuse:
    """Say that it will not be started here."""

    want: Want
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End it, send what it left, say so."""

    lease_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End it and forget it: the grid has closed the lease."""

    lease_id: str
    reason: str


Action = Claim | Refuse | Stop | Kill


@dataclass(frozen=True, slots=True)
class Desired:
    """What the grid wants, merged from its messages."""

    wants: Mapping[str, Want]
    epoch: int

    def merged(self, told: Sequence[Want], *, full: bool) -> Desired:
        """After one message: a full one replaces, another one adds."""
        fresh = {want.lease_id: want for want in told}
        return Desired(fresh if full else {**self.wants, **fresh}, self.epoch)

    def without(self, lease_id: str) -> Desired:
        """After the node has ended a lease by itself."""
        left = {key: want for key, want in self.wants.items() if key != lease_id}
        return Desired(left, self.epoch)


def on_sync(
    held: Mapping[str, Held],
    desired: Desired,
    *,
    known_whole: bool,
    refused: frozenset[tuple[str, int]] = frozenset(),
    cannot: str = "",
) -> list[Action]:
    """What to do so that the leases held here become those desired.

    `known_whole` is False until the session has told its whole state once: before that, a lease
    that is not desired may only not have been told yet. `refused` are claims (lease, epoch) that
    the grid has answered with REVOKED: asking again in the same session would not end. `cannot`
    says why this node takes no new work; empty when it does.
    """
    actions: list[Action] = []
    if known_whole:
        actions += [
            Kill(lease_id, "the grid closed the lease")
            for lease_id in held
            if lease_id not in desired.wants
        ]
    for lease_id, want in desired.wants.items():
        here = held.get(lease_id)
        if here is None:
            if (lease_id, desired.epoch) not in refused:
                actions.append(Refuse(want, cannot) if cannot else Claim(want))
        elif want.stop and not here.stopping:
            actions.append(Stop(lease_id, want.stop_reason or "stopped"))
    return actions


class Outcome(StrEnum):
    """What Complete says, by the names of lease.proto."""

    EXITED = "EXITED"
    CANCELLED = "CANCELLED"
    ABANDONED = "ABANDONED"
    RUNTIME_FAILED = "RUNTIME_FAILED"
    RUNTIME_LOST = "RUNTIME_LOST"
    IMAGE_UNAVAILABLE = "IMAGE_UNAVAILABLE"
    NODE_REFUSED = "NODE_REFUSED"
    LAUNCH_INVALID = "LAUNCH_INVALID"


# By the runtime's reasons (ExitReason). An expired lease is the grid's to judge: it has closed the
# lease already, or lets the attempt be made again.
_OUTCOMES = {
    "exited": Outcome.EXITED,
    "timed_out": Outcome.EXITED,
    "stopped": Outcome.CANCELLED,
    "lease_expired": Outcome.RUNTIME_LOST,
    "start_failed": Outcome.RUNTIME_FAILED,
    "runtime_lost": Outcome.RUNTIME_LOST,
}
# By the reason of the error that a runtime raised before the start.
_FAILURES = {
    "IMAGE_NOT_FOUND": Outcome.IMAGE_UNAVAILABLE,
    "INVALID_REQUEST": Outcome.LAUNCH_INVALID,
    "NODE_SLOTS_EXHAUSTED": Outcome.NODE_REFUSED,
    "SANDBOX_INCOMPLETE": Outcome.NODE_REFUSED,
    "SANDBOX_UNAVAILABLE": Outcome.NODE_REFUSED,
    "DOCKER_UNAVAILABLE": Outcome.NODE_REFUSED,
}


def outcome_of_exit(reason: str) -> Outcome:
    """What an ended attempt is called."""
    return _OUTCOMES[reason]


def outcome_of_failure(reason: str) -> Outcome:
    """What a start that failed is called."""
    return _FAILURES.get(reason, Outcome.RUNTIME_FAILED)


def exit_code(code: int | None, signal: int | None) -> int:
    """The code as a shell shows it; 255 where nothing is known."""
    if code is not None:
        return code
    return 128 + signal if signal else 255


_ARTIFACTS = "/workspace/artifacts/"


def missing_artifacts(expected: Sequence[str], names: Sequence[str]) -> list[str]:
    """Declared paths that no collected file answers to; a folder is there when a file is in it."""
    there = set(names)
    folders = {name[:at] for name in names for at, letter in enumerate(name) if letter == "/"}
    found = there | folders
    return [path for path in expected if _below(path) not in found]


def _below(path: str) -> str:
    name = path.removeprefix(_ARTIFACTS).removeprefix("artifacts/")
    return name.removeprefix("./").rstrip("/")


def drains(used_share: float, *, draining: bool, full_share: float) -> bool:
    """Whether the disk is too full for new work; eased 5 % later, so that it does not flap."""
    return used_share >= (full_share - 0.05 if draining else full_share)
