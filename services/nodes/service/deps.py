"""What all use cases of nodes stand on, and the two writes they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from libs.clock import Clock
from libs.db import Database, OutboxEvent, Tx
from libs.ids import IdSource
from libs.tenancy import SystemScope
from services.nodes.config import NodesConfig
from services.nodes.domain import Fact, Lease, Moved, Node
from services.nodes.repository import NodesRepository
from services.nodes.session import Sessions

SCOPE = SystemScope("nodes serve every workspace; each lease names its own")


class Launches(Protocol):
    """jobs, as nodes asks it."""

    async def get_launch(self, lease: Lease) -> Any:
        """All that is needed to run the lease, not looked into here; raises LaunchRefused when the
        attempt is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Deps:
    """The world of the use cases. `lease_event` and `node_event` make outbox rows from facts;
    `sign_grant(lease, unix_seconds)` and `sign_session(node_id, epoch, unix_seconds)` make what
    the node shows to logs and artifacts."""

    database: Database
    repository: NodesRepository
    ids: IdSource
    clock: Clock
    config: NodesConfig
    sessions: Sessions
    launches: Launches
    lease_event: Callable[[Lease, Fact, int, datetime], OutboxEvent]
    node_event: Callable[[Node, datetime], OutboxEvent]
    sign_grant: Callable[[Lease, float], bytes]
    sign_session: Callable[[str, int, float], str]

    def move(self, tx: Tx, before: Lease, moved: Moved) -> Lease:
        """Writes a transition and tells its facts, in this commit."""
        after = moved.lease
        if after is not before:
            self.repository.update_lease(tx, SCOPE, before, after)
        self.tell(tx, after, moved.facts)
        return after

    def tell(self, tx: Tx, lease: Lease, facts: tuple[Fact, ...]) -> None:
        """Emits facts of a lease, numbered in the history of its job."""
        if not facts:
            return
        now = tx.now()
        seqs = self.repository.next_seqs(tx, SCOPE, lease, len(facts))
        for seq, fact in zip(seqs, facts, strict=True):
            tx.emit(self.lease_event(lease, fact, seq, now))

    def change_node(self, tx: Tx, before: Node, after: Node) -> None:
        """Writes a node that has changed, and tells it whole if the change is one to tell."""
        self.repository.update_node(tx, SCOPE, after)
        if after.seq != before.seq:
            tx.emit(self.node_event(after, tx.now()))
