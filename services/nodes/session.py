"""One Sync stream as a value: what the node was told, and what it must be told next. No I/O.

The registry knows the streams of this process. A hint (`wake`, `offer`) rings a session's bell; its
writer then asks `plan` for the one response that covers everything since the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.nodes.domain import Gpu, Lease, LeaseState, Resources

PHASES_MAX = 500


@dataclass(frozen=True, slots=True)
class Desired:
    """A lease as the grid wants it on its node."""

    lease_id: str
    job_id: str
    attempt: int
    task_index: int
    stop_reason: str
    resources: Resources
    gpus: tuple[Gpu, ...]

    @staticmethod
    def of(lease: Lease) -> Desired:
        """The node's part of a lease."""
        return Desired(
            lease.lease_id,
            lease.job_id,
            lease.attempt,
            lease.task_index,
            lease.stop_reason,
            lease.terms.resources,
            lease.terms.gpus,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """One response. `full` says that `leases` is the whole set."""

    welcome: bool
    ack_seq: int
    leases: tuple[Desired, ...] = ()
    full: bool = False
    grants: tuple[Lease, ...] = ()
    fenced: bool = False
    final: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A reply with its secrets; `session_token` is set with a welcome."""

    reply: Reply
    session_token: str = field(default="", repr=False)
    grants: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)


@dataclass(slots=True)
class NodeSession:
    """The stream that holds epoch `epoch` of a node. Times are seconds of the monotonic clock."""

    node_id: str
    epoch: int
    opened_at: float
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    draining: bool = False
    ack_seq: int = 0
    stale: bool = True  # the table has to be read before the next response
    fenced: bool = False
    final: bool = False
    ended: bool = False
    error: BaseException | None = None
    welcomed_at: float | None = None
    wanted: dict[str, Lease] = field(default_factory=dict)
    granted: dict[str, float] = field(default_factory=dict)
    phases: dict[str, int] = field(default_factory=dict)
    changes: int = 0  # of `wanted`, so that a slow read of the table does not undo a newer one
    _told: dict[str, Desired] = field(default_factory=dict)
    _told_seq: int = 0
    _full: bool = True

    def ring(self) -> None:
        """Lets the writer look."""
        self.bell.set()

    def wake(self) -> None:
        """The table may have changed."""
        self.stale = True
        self.bell.set()

    def offer(self, lease: Lease) -> None:
        """A lease of this node as it was just committed, which saves reading the table."""
        self.changes += 1
        if lease.open:
            self.wanted[lease.lease_id] = lease
        elif self.wanted.pop(lease.lease_id, None) is not None:
            self._full = True
            self.granted.pop(lease.lease_id, None)
            self.phases.pop(lease.lease_id, None)
        self.bell.set()

    def note(self, lease: Lease) -> None:
        """A lease as the node itself has just made it: it needs no telling."""
        self.changes += 1
        if lease.open:
            self.wanted[lease.lease_id] = lease
        else:
            self.wanted.pop(lease.lease_id, None)
            self._told.pop(lease.lease_id, None)
            self.granted.pop(lease.lease_id, None)
            self.phases.pop(lease.lease_id, None)

    def fence(self, *, final: bool = False) -> None:
        """The epoch is gone; the writer says so and ends."""
        self.fenced, self.final = True, final
        self.bell.set()

    def end(self, error: BaseException | None = None) -> None:
        """The node has ended its side."""
        self.ended, self.error = True, error
        self.bell.set()

    def acknowledge(self, seq: int) -> None:
        """The request `seq` was applied."""
        self.ack_seq = seq
        self.bell.set()

    def versions(self) -> dict[str, int]:
        """The versions of the leases as they are known here."""
        return {lease_id: lease.version for lease_id, lease in self.wanted.items()}

    def refresh(self, leases: Iterable[Lease], *, changes: int) -> None:
        """The open leases of the node, read from the table. When `changes` has moved on since the
        read began, the table has to be read again."""
        if self.changes != changes:
            self.stale = True
            return
        self.wanted = {lease.lease_id: lease for lease in leases}

    def tell_all(self) -> None:
        """The next response carries the whole set: the node holds something that it should not."""
        self._full = True
        self.stale = True

    def fresh_phases(self, lease_id: str, told: int) -> int:
        """How many of the `told` steps of a lease may be passed on: each costs the bus a record, so
        a node has only so many a lease and session."""
        used = self.phases.get(lease_id, 0)
        taken = min(told, max(PHASES_MAX - used, 0))
        if taken and lease_id in self.wanted:
            self.phases[lease_id] = used + taken
        return taken

    def is_news(self, lease_id: str, state: LeaseState) -> bool:
        """Whether a bare report of `state` may change the row; heartbeats mostly do not."""
        known = self.wanted.get(lease_id)
        return known is None or known.state is not state or not known.reported

    def plan(self, *, welcome: bool, renew_before: float) -> Reply | None:
        """The response that brings the node up to date; None when there is nothing to say.

        Grants that end before `renew_before` are renewed with it.
        """
        if self.fenced:
            return Reply(False, self.ack_seq, fenced=True, final=self.final)
        wanted = {lease_id: Desired.of(lease) for lease_id, lease in self.wanted.items()}
        full = self._full or any(lease_id not in wanted for lease_id in self._told)
        changed = tuple(
            want for lease_id, want in wanted.items() if self._told.get(lease_id) != want
        )
        grants = self._due(renew_before)
        if not (full or changed or grants or welcome or self.ack_seq != self._told_seq):
            return None
        self._told, self._full, self._told_seq = wanted, False, self.ack_seq
        leases = tuple(wanted.values()) if full else changed
        return Reply(welcome, self.ack_seq, leases, full, grants)

    def _due(self, before: float) -> tuple[Lease, ...]:
        return tuple(
            lease
            for lease_id, lease in self.wanted.items()
            if lease.state is not LeaseState.ASSIGNED and self.granted.get(lease_id, 0.0) < before
        )


class Sessions:
    """The sessions of this process, one per node."""

    def __init__(self) -> None:
        self._by_node: dict[str, NodeSession] = {}

    @property
    def all(self) -> Mapping[str, NodeSession]:
        """By node id."""
        return self._by_node

    def get(self, node_id: str) -> NodeSession | None:
        """The node's session, if this process holds it."""
        return self._by_node.get(node_id)

    def add(self, session: NodeSession) -> None:
        """Takes the place of an older session of the node, which is fenced."""
        older = self._by_node.get(session.node_id)
        if older is not None:
            older.fence()
        self._by_node[session.node_id] = session

    def remove(self, session: NodeSession) -> None:
        """Forgets a session that has ended."""
        if self._by_node.get(session.node_id) is session:
            del self._by_node[session.node_id]

    def wake(self, node_id: str) -> bool:
        """Whether the node's session is here; it then reads its table."""
        session = self._by_node.get(node_id)
        if session is not None:
            session.wake()
        return session is not None

    def offer(self, lease: Lease) -> None:
        """Gives a committed lease to its node's session, if that is here."""
        session = self._by_node.get(lease.node_id)
        if session is not None:
            session.offer(lease)

    def note(self, lease: Lease) -> None:
        """As `offer`, for what the node itself did."""
        session = self._by_node.get(lease.node_id)
        if session is not None:
            session.note(lease)

    def fence(self, node_id: str, *, final: bool = False) -> None:
        """Ends the node's session, if it is here."""
        session = self._by_node.get(node_id)
        if session is not None:
            session.fence(final=final)
