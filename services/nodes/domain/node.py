"""The node: what may happen to it, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from services.nodes.domain.hardware import Inventory


class NodeState(StrEnum):
    """As in node_event.proto."""

    ENROLLED = "enrolled"
    ONLINE = "online"
    DRAINING = "draining"
    OFFLINE = "offline"
    REVOKED = "revoked"


NODE_MOVES: Mapping[NodeState, frozenset[NodeState]] = {
    NodeState.ENROLLED: frozenset({NodeState.ONLINE, NodeState.DRAINING, NodeState.REVOKED}),
    NodeState.ONLINE: frozenset({NodeState.DRAINING, NodeState.OFFLINE, NodeState.REVOKED}),
    NodeState.DRAINING: frozenset({NodeState.ONLINE, NodeState.OFFLINE, NodeState.REVOKED}),
    NodeState.OFFLINE: frozenset({NodeState.ONLINE, NodeState.DRAINING, NodeState.REVOKED}),
    NodeState.REVOKED: frozenset(),
}
LIVE = frozenset({NodeState.ONLINE, NodeState.DRAINING})


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """The right to become a node, once."""

    prefix: str
    digest: bytes = field(repr=False)
    provider_id: str
    provider_name: str
    pool: str
    gpu_price_micros_per_hour: int
    cpu_price_micros_per_hour: int
    create_time: datetime
    expire_time: datetime
    node_id: str = ""

    def good(self, now: datetime) -> bool:
        """Whether it may still be used at `now`."""
        return not self.node_id and now < self.expire_time


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that lends hardware. `seq` counts the facts told about it.

    Draining has two sources, an operator and the node itself (a full disk); either is enough.
    `renewed_time` is in database time: the last moment the node was heard of.
    """

    node_id: str
    prefix: str
    digest: bytes = field(repr=False)
    provider_id: str
    provider_name: str
    name: str
    region: str
    pool: str
    gpu_price_micros_per_hour: int
    cpu_price_micros_per_hour: int
    inventory: Inventory
    create_time: datetime
    state: NodeState = NodeState.ENROLLED
    session_epoch: int = 0
    drained_by_operator: bool = False
    drained_by_node: bool = False
    renewed_time: datetime | None = None
    lost_time: datetime | None = None
    seq: int = 1
    version: int = 1

    @property
    def live(self) -> bool:
        """Whether its leases count as running until the deadline."""
        return self.state in LIVE

    def session_opened(self, inventory: Inventory | None, draining: bool, now: datetime) -> Node:
        """The node after Hello: a new epoch fences all older ones."""
        after = replace(
            self,
            inventory=inventory or self.inventory,
            drained_by_node=draining,
            state=self._live_state(self.drained_by_operator or draining),
            session_epoch=self.session_epoch + 1,
            renewed_time=now,
            lost_time=None,
        )
        if (after.state, after.inventory) == (self.state, self.inventory):
            return replace(after, version=self.version + 1)  # a reconnect is no news to anybody
        return after._changed()

    def reported(self, inventory: Inventory | None, draining: bool) -> Node:
        """The node after a report; itself when nothing changed."""
        after = replace(
            self, inventory=inventory or self.inventory, drained_by_node=draining
        )._drained()
        return self if after == self else after._changed()

    def drained(self, draining: bool) -> Node:
        """The node after DrainNode; itself when nothing changed."""
        after = replace(self, drained_by_operator=draining)._drained()
        return self if after == self else after._changed()

    def lost(self, now: datetime) -> Node:
        """The node after its deadline. The epoch moves on, so that nothing the old session still
        sends is taken."""
        return replace(
            self, state=NodeState.OFFLINE, session_epoch=self.session_epoch + 1, lost_time=now
        )._changed()

    def revoked(self) -> Node | None:
        """The node after RevokeNode; None when it was revoked before."""
        if self.state is NodeState.REVOKED:
            return None
        return replace(
            self, state=NodeState.REVOKED, session_epoch=self.session_epoch + 1
        )._changed()

    def _drained(self) -> Node:
        if not self.live:
            return self
        return replace(
            self, state=self._live_state(self.drained_by_operator or self.drained_by_node)
        )

    @staticmethod
    def _live_state(draining: bool) -> NodeState:
        return NodeState.DRAINING if draining else NodeState.ONLINE

    def _changed(self) -> Node:
        return replace(self, seq=self.seq + 1, version=self.version + 1)
