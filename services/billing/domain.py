"""Holds, closes and the judgement of a job's money; pure and synchronous.

A reservation is a pending transfer of the ledger; it is resolved by exactly one other transfer.
What billing knows of a job is its Bill: a small row that is moved by facts which may come twice,
late or in another order, and that always answers one question: may the hold be resolved now?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

CURRENCY = "USD"


class Kind(StrEnum):
    """What an account is for. `funding` is the world outside: its balance is minus what came in."""

    FUNDING = "funding"
    WALLET = "wallet"
    HELD = "held"
    PLATFORM = "platform"
    PAYABLE = "payable"


class TransferKind(StrEnum):
    """`pending` holds, `post` pays or credits, `void` gives back."""

    PENDING = "pending"
    POST = "post"
    VOID = "void"


class ReservationStatus(StrEnum):
    """See the proto of the same name."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"


MOVES: Mapping[ReservationStatus, frozenset[ReservationStatus]] = {
    ReservationStatus.HELD: frozenset({ReservationStatus.SETTLED, ReservationStatus.RELEASED}),
    ReservationStatus.SETTLED: frozenset(),
    ReservationStatus.RELEASED: frozenset(),
}
RESOLVED_BY = {
    None: ReservationStatus.HELD,
    TransferKind.POST: ReservationStatus.SETTLED,
    TransferKind.VOID: ReservationStatus.RELEASED,
}


class Outcome(StrEnum):
    """How a lease ended."""

    EXITED = "exited"
    CANCELLED = "cancelled"
    NODE_LOST = "node_lost"
    ABANDONED = "abandoned"
    RUNTIME_FAILED = "runtime_failed"
    RUNTIME_LOST = "runtime_lost"
    IMAGE_UNAVAILABLE = "image_unavailable"
    NODE_REFUSED = "node_refused"
    LAUNCH_INVALID = "launch_invalid"


OURS = frozenset(Outcome) - {Outcome.EXITED, Outcome.CANCELLED}


@dataclass(frozen=True, slots=True)
class Account:
    """One side of the ledger. The id says workspace or node, so that it needs no look-up."""

    account_id: str
    kind: Kind
    workspace_id: str = ""


def workspace_accounts(workspace_id: str) -> tuple[Account, Account, Account]:
    """Funding, wallet and held account of a workspace."""
    return (
        Account(f"funding:{workspace_id}", Kind.FUNDING, workspace_id),
        Account(f"wallet:{workspace_id}", Kind.WALLET, workspace_id),
        Account(f"held:{workspace_id}", Kind.HELD, workspace_id),
    )


PLATFORM = Account("platform", Kind.PLATFORM)


def payable(node_id: str) -> Account:
    """What is owed for one node."""
    return Account(f"payable:{node_id}", Kind.PAYABLE)


@dataclass(frozen=True, slots=True)
class Posting:
    """One movement between two accounts, always positive."""

    transfer_id: str
    line: str
    debit: str
    credit: str
    amount_micros: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A pending transfer that has not been resolved."""

    transfer_id: str
    reservation_id: str
    attempt: int
    period: int
    amount_micros: int

    @classmethod
    def of(
        cls, job_id: str, attempt: int, period: int, amount_micros: int, reservation_id: str
    ) -> Hold:
        """The hold of an attempt's period: (job, attempt, period) is its identity."""
        name = f"reserve:{job_id}:{attempt}:{period}"
        return cls(name, reservation_id, attempt, period, amount_micros)

    def resolution_id(self, verb: str, job_id: str) -> str:
        """`settle:<job>:<attempt>:<period>` or `release:...`."""
        return f"{verb}:{job_id}:{self.attempt}:{self.period}"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A hold as its asker sees it."""

    reservation_id: str
    status: ReservationStatus
    amount_micros: int
    available_micros: int


@dataclass(frozen=True, slots=True)
class Balance:
    """The wallet of a workspace in micro-USD."""

    available_micros: int
    reserved_micros: int
    spent_micros: int
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """The start of a lease was granted."""

    job_id: str
    attempt: int
    claimed_time: datetime
    price_micros_per_hour: int


@dataclass(frozen=True, slots=True)
class Close:
    """A lease is over. All times are the database's."""

    job_id: str
    attempt: int
    task_index: int
    lease_id: str
    allocation_id: str
    node_id: str
    outcome: Outcome
    claimed_time: datetime | None
    exited_time: datetime | None
    closed_time: datetime
    started: bool
    price_micros_per_hour: int
    simulated: bool

    @property
    def ours(self) -> bool:
        """The failure is the grid's: nobody pays, and another attempt may follow."""
        if self.outcome in (Outcome.IMAGE_UNAVAILABLE, Outcome.LAUNCH_INVALID):
            return not self.started
        return self.outcome in OURS


@dataclass(frozen=True, slots=True)
class Finish:
    """A job is final. `attempt` is the last one, 0 for none; `awaits_close` says that the close of
    its lease has happened or will happen, whether or not it has been heard here."""

    job_id: str
    attempt: int
    awaits_close: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """What the meter read for one lease; never changed afterwards. `metered_micros` is the cost
    before the cap of the hold."""

    lease_id: str
    task_index: int
    node_id: str
    ours: bool
    billed_micros: int
    metered_micros: int
    price_micros_per_hour: int
    simulated: bool


@dataclass(frozen=True, slots=True)
class Bill:
    """What billing knows of one job.

    `attempt` is the latest that was queued and `closed_attempt` the latest whose leases are all
    closed; `awaited_attempt` keeps the hold of a final job until that attempt has closed. `tasks`
    is 0 until the job was heard to be queued; readings that came before are `unjudged`. `holds`
    are those that no transfer has resolved, oldest first; the ledger refuses a wrong one.
    """

    workspace_id: str
    job_id: str
    created_time: datetime
    version: int = 0
    event_seq: int = 0
    tasks: int = 0
    attempt: int = 0
    closed_attempt: int = 0
    awaited_attempt: int = 0
    holds: tuple[Hold, ...] = ()
    held_micros: int = 0
    total_cost_micros: int = 0
    rate_micros_per_hour: int = 0
    claimed_attempt: int = 0
    claimed_time: datetime | None = None
    exhaust_time: datetime | None = None
    finished_time: datetime | None = None
    had_hold: bool = False
    unjudged: bool = False

    @property
    def releasable(self) -> bool:
        """The job is final and no lease of it is awaited, nor known to run."""
        over = self.finished_time is not None and self.closed_attempt >= self.awaited_attempt
        return over and not self.in_use

    @property
    def unpaid(self) -> bool:
        """An attempt waits or runs, and the hold that should pay for it is gone."""
        open_attempt = self.attempt > self.closed_attempt and self.finished_time is None
        return open_attempt and self.had_hold and self.held_micros == 0

    @property
    def in_use(self) -> bool:
        """A lease was granted and has not closed."""
        return self.claimed_attempt > self.closed_attempt

    def hold(self, hold: Hold) -> Bill:
        """A hold was made."""
        holds = sorted((*self.holds, hold), key=lambda each: (each.attempt, each.period))
        return replace(
            self,
            holds=tuple(holds),
            held_micros=self.held_micros + hold.amount_micros,
            had_hold=self.had_hold or hold.amount_micros > 0,
        )

    def resolved(self, charge_micros: int) -> Bill:
        """All holds were resolved: the meter has nothing left to watch."""
        return replace(
            self,
            holds=(),
            held_micros=0,
            exhaust_time=None,
            total_cost_micros=self.total_cost_micros + charge_micros,
        )

    def may_have_read(self, attempt: int) -> bool:
        """A reading of the attempt may exist. Judging the only reading of an attempt closes it, so
        for one task there is none before."""
        return self.tasks != 1 or self.unjudged or self.closed_attempt >= attempt

    def queued(self, attempt: int, tasks: int) -> Bill:
        """An attempt waits for a node."""
        return replace(
            self, attempt=max(self.attempt, attempt), tasks=max(tasks, 1), unjudged=False
        )

    def claimed(self, claim: Claim) -> Bill:
        """The meter starts with the first grant of an attempt; a late telling changes nothing."""
        if claim.attempt <= self.closed_attempt or self.claimed_attempt > claim.attempt:
            return self
        first = self.claimed_time if self.claimed_attempt == claim.attempt else None
        return replace(
            self,
            claimed_attempt=claim.attempt,
            claimed_time=min(first or claim.claimed_time, claim.claimed_time),
            rate_micros_per_hour=claim.price_micros_per_hour * max(self.tasks, 1),
        )

    def finished(self, finish: Finish, now: datetime) -> Bill:
        """The job is final; the first telling counts."""
        if self.finished_time is not None:
            return self
        awaited = finish.attempt if finish.awaits_close else 0
        return replace(self, finished_time=now, awaited_attempt=awaited)

    def closed(self, attempt: int) -> Bill:
        """All leases of `attempt` are closed: its meter stops."""
        latest = max(self.closed_attempt, attempt)
        runs = self.claimed_attempt > latest
        return replace(
            self, closed_attempt=latest, exhaust_time=self.exhaust_time if runs else None
        )

    def complete(self, readings: Sequence[Usage]) -> bool:
        """These are the readings of all tasks of an attempt."""
        return 0 < self.tasks <= len({reading.task_index for reading in readings})


@dataclass(frozen=True, slots=True)
class AttemptSettled:
    """An attempt was settled."""

    attempt: int
    cost_micros: int
    billed_micros: int
    price_micros_per_hour: int
    total_cost_micros: int
    simulated: bool
    held_micros: int


@dataclass(frozen=True, slots=True)
class HoldExhausted:
    """The hold is used up: the job must stop."""

    attempt: int


@dataclass(frozen=True, slots=True)
class HoldReleased:
    """What was left of the hold went back."""

    released_micros: int


Fact = AttemptSettled | HoldExhausted | HoldReleased


@dataclass(frozen=True, slots=True)
class Told:
    """A fact with its place in the history of its job."""

    workspace_id: str
    job_id: str
    seq: int
    time: datetime
    fact: Fact


@dataclass(frozen=True, slots=True)
class Transfer:
    """One posting of the ledger as operators read it."""

    transfer_id: str
    debit: str
    credit: str
    amount_micros: int
