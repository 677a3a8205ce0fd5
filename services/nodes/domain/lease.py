"""The lease: the right of one node session to run one task of one attempt, once.

Every transition is a method that returns the lease after it and the facts that follow. A move that
MOVES does not have raises IllegalMove; what a hostile node may send ends there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.nodes.domain.hardware import Gpu, Resources
from services.nodes.errors import IllegalMove


class LeaseState(StrEnum):
    """As in lease.proto."""

    ASSIGNED = "assigned"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    CLOSED = "closed"


MOVES: Mapping[LeaseState, frozenset[LeaseState]] = {
    LeaseState.ASSIGNED: frozenset({LeaseState.STARTING, LeaseState.CLOSED}),
    LeaseState.STARTING: frozenset({LeaseState.RUNNING, LeaseState.EXITED, LeaseState.CLOSED}),
    LeaseState.RUNNING: frozenset({LeaseState.EXITED, LeaseState.CLOSED}),
    LeaseState.EXITED: frozenset({LeaseState.CLOSED}),
    LeaseState.CLOSED: frozenset(),
}


class Outcome(StrEnum):
    """As in lease.proto."""

    EXITED = "exited"
    CANCELLED = "cancelled"
    NODE_LOST = "node_lost"
    ABANDONED = "abandoned"
    RUNTIME_FAILED = "runtime_failed"
    RUNTIME_LOST = "runtime_lost"
    IMAGE_UNAVAILABLE = "image_unavailable"
    NODE_REFUSED = "node_refused"
    LAUNCH_INVALID = "launch_invalid"


# What a node may say before it has asked to start.
_UNSTARTED = frozenset({Outcome.CANCELLED, Outcome.NODE_REFUSED})


@dataclass(frozen=True, slots=True)
class Phase:
    """One step as the node saw it; `node_time` is for display."""

    phase: str
    message: str
    level: str
    node_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How the process ended."""

    code: int
    signal: int = 0
    timed_out: bool = False
    out_of_memory: bool = False
    stopped: bool = False
    reason: str = ""
    started_node_time: datetime | None = None
    finished_node_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed when the lease was opened; it never changes."""

    placement_id: str
    resources: Resources
    gpus: tuple[Gpu, ...]
    price_micros_per_hour: int
    reservation_id: str
    timeout_seconds: int
    simulated: bool
    region: str
    provider_name: str


@dataclass(frozen=True, slots=True)
class Report:
    """A node's word about one lease it holds."""

    lease_id: str
    state: LeaseState
    phases: tuple[Phase, ...] = ()
    exit: ProcessExit | None = None
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Closing:
    """A node's word that a lease is over for it."""

    outcome: Outcome
    exit: ProcessExit | None = None
    artifacts: int = 0
    artifact_bytes: int = 0
    log_gap: bool = False
    message: str = ""
    phases: tuple[Phase, ...] = ()
    missing_artifacts: tuple[str, ...] = ()
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A node has been given the lease."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """Its start was granted."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """Steps worth telling by themselves."""

    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """The process runs."""

    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class Exited:
    """The process has ended."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Over."""

    closing: Closing


Fact = Opened | Claimed | Progressed | Started | Exited | Closed


@dataclass(frozen=True, slots=True)
class Lease:
    """Times are database times. `claim_epoch` is the session that was granted the start, while
    `session_epoch` follows the node's newest session. `reported` says that the node has spoken of
    it since the grant. `phase_time` is the node time of the last step that was told."""

    workspace_id: str
    lease_id: str
    job_id: str
    attempt: int
    task_index: int
    allocation_id: str
    node_id: str
    session_epoch: int
    terms: Terms
    open_time: datetime
    state: LeaseState = LeaseState.ASSIGNED
    claim_epoch: int = 0
    reported: bool = False
    stop_reason: str = ""
    runtime: str = ""
    claimed_time: datetime | None = None
    started_time: datetime | None = None
    exited_time: datetime | None = None
    closed_time: datetime | None = None
    phase_time: datetime | None = None
    exit: ProcessExit | None = None
    outcome: Outcome | None = None
    version: int = 1

    @property
    def open(self) -> bool:
        """Whether it still holds its allocation."""
        return self.state is not LeaseState.CLOSED

    @property
    def stop(self) -> bool:
        """Whether the grid wants it to end."""
        return bool(self.stop_reason)

    def may_be_granted_again(self, session_epoch: int) -> bool:
        """Whether the session that was granted the start may have lost the answer."""
        claimed_here = self.claim_epoch == session_epoch
        return self.state is LeaseState.STARTING and claimed_here and not self.reported

    def claim(self, session_epoch: int, now: datetime) -> Moved:
        """StartClaim: the meter starts."""
        after = self._to(LeaseState.STARTING, claim_epoch=session_epoch, claimed_time=now)
        return Moved(after, (Claimed(),))

    def report(self, report: Report, now: datetime) -> Moved:
        """A report of the state it is in changes nothing but the steps; one of an earlier state
        comes from a node that has not yet heard its own acknowledgement, and is dropped."""
        phases = self._fresh(report.phases)
        if report.state is LeaseState.RUNNING and self.state is LeaseState.STARTING:
            return self._start(phases, report.runtime, now)
        if report.state is LeaseState.EXITED and self.state in _ALIVE:
            if report.exit is None:
                raise IllegalMove("a report of EXITED needs the exit")
            return self._end(report.exit, phases, report.runtime, now)
        if report.state not in _REPORTABLE or self.state is LeaseState.ASSIGNED:
            raise IllegalMove(f"a lease that is {self.state} cannot become {report.state}")
        if phases and self.open:
            after = self._same(reported=True, phase_time=_latest(self.phase_time, phases))
            return Moved(after, (Progressed(phases),))
        if self.open and not self.reported:
            return Moved(self._same(reported=True), ())
        return Moved(self, ())

    def request_stop(self, reason: str, now: datetime) -> Moved:
        """The grid wants it to end. What was never started is over at once."""
        if not self.open or self.stop:
            return Moved(self, ())
        if self.state is LeaseState.ASSIGNED:
            wanted = replace(self, stop_reason=reason)
            return wanted.close(Closing(Outcome.CANCELLED), now)
        return Moved(self._same(stop_reason=reason), ())

    def complete(self, closing: Closing, now: datetime) -> Moved:
        """Complete. The exit that was reported first stands; CANCELLED is the grid's word, so a
        node that was not asked to stop has lost the process."""
        if self.state is LeaseState.ASSIGNED and closing.outcome not in _UNSTARTED:
            raise IllegalMove(f"{closing.outcome} of a lease whose start was not granted")
        if closing.outcome is Outcome.NODE_LOST:
            raise IllegalMove("a node cannot say of itself that it is lost")
        if closing.outcome is Outcome.EXITED and (self.exit or closing.exit) is None:
            raise IllegalMove("EXITED needs the exit")
        if closing.outcome is Outcome.CANCELLED and not self.stop:
            unstarted = self.state is LeaseState.ASSIGNED
            outcome = Outcome.NODE_REFUSED if unstarted else Outcome.RUNTIME_LOST
            closing = replace(closing, outcome=outcome)
        lease = self
        facts: tuple[Fact, ...] = ()
        if closing.exit is not None and self.state in _ALIVE:
            ended = self._end(closing.exit, self._fresh(closing.phases), closing.runtime, now)
            lease, facts = ended.lease, ended.facts
            closing = replace(closing, phases=())
        closed = lease.close(replace(closing, phases=lease._fresh(closing.phases)), now)
        return Moved(closed.lease, (*facts, *closed.facts))

    def close(self, closing: Closing, now: datetime, meter_end: datetime | None = None) -> Moved:
        """The end, whatever led to it. `meter_end` is when a claimed lease was last known to run;
        by default now."""
        exited = self.exited_time
        if exited is None and self.claimed_time is not None:
            exited = max(self.claimed_time, min(meter_end or now, now))
        after = self._to(
            LeaseState.CLOSED,
            outcome=closing.outcome,
            exited_time=exited,
            closed_time=now,
            runtime=closing.runtime or self.runtime,
        )
        return Moved(after, (Closed(closing),))

    def _start(self, phases: tuple[Phase, ...], runtime: str, now: datetime) -> Moved:
        after = self._to(
            LeaseState.RUNNING,
            started_time=now,
            runtime=runtime,
            reported=True,
            phase_time=_latest(self.phase_time, phases),
        )
        return Moved(after, (Started(phases),))

    def _end(
        self, exit: ProcessExit, phases: tuple[Phase, ...], runtime: str, now: datetime
    ) -> Moved:
        facts: tuple[Fact, ...] = (Started(phases),)
        if self.state is LeaseState.RUNNING:
            facts = (Progressed(phases),) if phases else ()
        after = self._to(
            LeaseState.EXITED,
            started_time=self.started_time or now,
            exited_time=now,
            exit=exit,
            runtime=runtime or self.runtime,
            reported=True,
            phase_time=_latest(self.phase_time, phases),
        )
        return Moved(after, (*facts, Exited()))

    def _fresh(self, phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
        """The steps that were not told yet: a node repeats those that were not acknowledged."""
        told = self.phase_time
        if told is None:
            return phases
        return tuple(step for step in phases if step.node_time is None or step.node_time > told)

    def _to(self, state: LeaseState, **changes: object) -> Lease:
        if state not in MOVES[self.state]:
            raise IllegalMove(f"a lease that is {self.state} cannot become {state}")
        return self._same(state=state, **changes)

    def _same(self, **changes: object) -> Lease:
        return replace(self, version=self.version + 1, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Moved:
    """A lease after a transition, and what to tell."""

    lease: Lease
    facts: tuple[Fact, ...]


_ALIVE = frozenset({LeaseState.STARTING, LeaseState.RUNNING})
_REPORTABLE = frozenset({LeaseState.STARTING, LeaseState.RUNNING, LeaseState.EXITED})


def _latest(told: datetime | None, phases: Sequence[Phase]) -> datetime | None:
    times = [step.node_time for step in phases if step.node_time is not None]
    return max([*times, *([told] if told else [])], default=None)
