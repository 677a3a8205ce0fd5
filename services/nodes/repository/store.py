"""Rows of nodes. Statements of the hot path are built once: building costs more than running."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from libs.db import Bulk, Tx
from libs.errors import StaleWrite
from libs.tenancy import SystemScope
from services.nodes import tables
from services.nodes.domain import EnrolmentToken, Lease, LeaseState, Node, NodeState
from services.nodes.repository.rows import (
    LEASE_CHANGING,
    LEASE_COLUMNS,
    lease_changes,
    lease_from_row,
    lease_row,
    node_changes,
    node_from_row,
    node_row,
)

_t, _n, _l, _h = (
    tables.enrolment_tokens,
    tables.nodes,
    tables.leases,
    tables.lease_histories,
)
_LIVE = (NodeState.ONLINE.value, NodeState.DRAINING.value)


_NODE = select(_n).where(_n.c.node_id == bindparam("id"))
_NODE_BY_PREFIX = select(_n).where(_n.c.prefix == bindparam("prefix"))
# The SET clause comes from the names of the values.
_NODE_UPDATE = update(_n).where(
    _n.c.node_id == bindparam("at_id"), _n.c.version == bindparam("at_version")
)
# A node that was given up or revoked has moved on to another epoch, so this is all it takes.
_RENEW = Bulk(
    update(_n)
    .where(_n.c.node_id == bindparam("at_id"), _n.c.session_epoch == bindparam("at_epoch"))
    .values(renewed_time=bindparam("now")),
    *("at_id", "at_epoch", "now"),
)
_LEASE = select(_l).where(_l.c.lease_id == bindparam("id"))
_OPEN_OF_NODE = (
    select(_l)
    .where(_l.c.node_id == bindparam("id"), _l.c.state != LeaseState.CLOSED.value)
    .order_by(_l.c.lease_id)
)
_OPEN_VERSIONS = select(_l.c.node_id, _l.c.lease_id, _l.c.version).where(
    _l.c.state != LeaseState.CLOSED.value
)
_OPEN_OF_JOB = (
    select(_l)
    .where(_l.c.job_id == bindparam("id"), _l.c.state != LeaseState.CLOSED.value)
    .order_by(_l.c.lease_id)
)
_STOPPING = (
    select(_l)
    .where(_l.c.state != LeaseState.CLOSED.value, _l.c.stop_reason != "")
    .order_by(_l.c.lease_id)
)
_CLAIMED = (
    select(_l)
    .where(
        _l.c.state.in_([LeaseState.STARTING.value, LeaseState.RUNNING.value]),
        _l.c.stop_reason == "",
        _l.c.claimed_time <= bindparam("before"),
    )
    .order_by(_l.c.lease_id)
)
_ALLOCATION = select(_l.c.lease_id).where(_l.c.allocation_id == bindparam("id")).limit(1)
_LEASE_INSERT = Bulk(insert(_l), *LEASE_COLUMNS)
_LEASE_UPDATE = Bulk(
    update(_l)
    .where(
        _l.c.workspace_id == bindparam("at_workspace"),
        _l.c.lease_id == bindparam("at_id"),
        _l.c.version == bindparam("at_version"),
    )
    .values({name: bindparam(f"to_{name}") for name in LEASE_CHANGING}),
    *("at_workspace", "at_id", "at_version"),
    *(f"to_{name}" for name in LEASE_CHANGING),
)
_REBIND = (
    update(_l)
    .where(_l.c.node_id == bindparam("at_node"), _l.c.state != LeaseState.CLOSED.value)
    .values(session_epoch=bindparam("epoch"), version=_l.c.version + 1)
)
_HISTORY_UPDATE = (
    update(_h)
    .where(_h.c.workspace_id == bindparam("at_workspace"), _h.c.job_id == bindparam("at_job"))
    .values(seq=_h.c.seq + bindparam("count"))
    .returning(_h.c.seq)
)
_HISTORY_INSERT = insert(_h)


class NodesRepository:
    """Nodes belong to the grid and their calls name leases by id alone, so most methods take a
    system scope; the caller compares the node. Lease rows carry their workspace throughout."""

    def token(self, tx: Tx, scope: SystemScope, prefix: str) -> EnrolmentToken | None:
        """The enrolment token that shows this prefix."""
        row = tx.execute(select(_t).where(_t.c.prefix == prefix)).mappings().first()
        return None if row is None else EnrolmentToken(**row)

    def add_token(self, tx: Tx, scope: SystemScope, token: EnrolmentToken) -> None:
        """Inserts; raises StaleWrite when the random prefix is taken."""
        values = {each.name: getattr(token, each.name) for each in fields(token)}
        _insert(tx, insert(_t), values)

    def use_token(self, tx: Tx, scope: SystemScope, prefix: str, node_id: str) -> None:
        """Marks the token as used; raises StaleWrite when it was used before."""
        done = tx.execute(
            update(_t).where(_t.c.prefix == prefix, _t.c.node_id == "").values(node_id=node_id)
        )
        _touched(done)

    def node(self, tx: Tx, scope: SystemScope, node_id: str) -> Node | None:
        """The node with this id."""
        row = tx.execute(_NODE, {"id": node_id}).mappings().first()
        return None if row is None else node_from_row(row)

    def node_by_prefix(self, tx: Tx, scope: SystemScope, prefix: str) -> Node | None:
        """The node whose credential shows this prefix."""
        row = tx.execute(_NODE_BY_PREFIX, {"prefix": prefix}).mappings().first()
        return None if row is None else node_from_row(row)

    def nodes(
        self, tx: Tx, scope: SystemScope, provider_id: str, after: str, limit: int
    ) -> list[tuple[Node, int]]:
        """Nodes after an id, with the number of their open leases."""
        held = (
            select(func.count())
            .where(_l.c.node_id == _n.c.node_id, _l.c.state != LeaseState.CLOSED.value)
            .scalar_subquery()
        )
        found = select(_n, held.label("held")).where(_n.c.node_id > after)
        if provider_id:
            found = found.where(_n.c.provider_id == provider_id)
        rows = tx.execute(found.order_by(_n.c.node_id).limit(limit)).mappings()
        return [(node_from_row(row), int(row["held"])) for row in rows]

    def live_nodes(self, tx: Tx, scope: SystemScope) -> list[tuple[str, datetime]]:
        """Ids of nodes that count as running, with the time they were last heard of."""
        found = select(_n.c.node_id, _n.c.renewed_time).where(_n.c.state.in_(_LIVE))
        return [(row.node_id, row.renewed_time) for row in tx.execute(found)]

    def lost_since(self, tx: Tx, scope: SystemScope, since: datetime) -> int:
        """How many nodes were given up after `since`."""
        found = select(func.count()).where(
            _n.c.state == NodeState.OFFLINE.value, _n.c.lost_time > since
        )
        return int(tx.execute(found).scalar_one())

    def add_node(self, tx: Tx, scope: SystemScope, node: Node) -> None:
        """Inserts; raises StaleWrite when the random prefix is taken."""
        _insert(tx, insert(_n), node_row(node))

    def update_node(self, tx: Tx, scope: SystemScope, node: Node) -> None:
        """Writes the node over the version before it; StaleWrite when that is gone."""
        at = {"at_id": node.node_id, "at_version": node.version - 1}
        _touched(tx.execute(_NODE_UPDATE, node_changes(node) | at))

    def renew(
        self, tx: Tx, scope: SystemScope, heard: Sequence[tuple[str, int, datetime]]
    ) -> list[str]:
        """Notes when nodes (id, epoch, time) were heard of; ids of those whose session is over."""
        if tx.execute_bulk(_RENEW, heard) == len(heard):
            return []
        ids = [node_id for node_id, _, _ in heard]
        found = select(_n.c.node_id, _n.c.session_epoch).where(_n.c.node_id.in_(ids))
        now = {row.node_id: row.session_epoch for row in tx.execute(found)}
        return [node_id for node_id, epoch, _ in heard if now.get(node_id) != epoch]

    def lease(self, tx: Tx, scope: SystemScope, lease_id: str) -> Lease | None:
        """The lease with this id."""
        row = tx.execute(_LEASE, {"id": lease_id}).mappings().first()
        return None if row is None else lease_from_row(row)

    def open_leases(self, tx: Tx, scope: SystemScope, node_id: str) -> list[Lease]:
        """All leases that a node holds."""
        rows = tx.execute(_OPEN_OF_NODE, {"id": node_id}).mappings()
        return [lease_from_row(row) for row in rows]

    def open_versions(self, tx: Tx, scope: SystemScope) -> dict[str, dict[str, int]]:
        """Node -> lease -> version, of all open leases."""
        found: dict[str, dict[str, int]] = {}
        for row in tx.execute(_OPEN_VERSIONS):
            found.setdefault(row.node_id, {})[row.lease_id] = row.version
        return found

    def open_leases_of_job(self, tx: Tx, scope: SystemScope, job_id: str) -> list[Lease]:
        """All leases of a job that still hold something."""
        rows = tx.execute(_OPEN_OF_JOB, {"id": job_id}).mappings()
        return [lease_from_row(row) for row in rows]

    def unclaimed(self, tx: Tx, scope: SystemScope, before: datetime) -> list[Lease]:
        """Leases that were opened before a time and whose start nobody asked for."""
        found = select(_l).where(_l.c.state == LeaseState.ASSIGNED.value, _l.c.open_time <= before)
        return [lease_from_row(row) for row in tx.execute(found).mappings()]

    def stopping(self, tx: Tx, scope: SystemScope) -> list[Lease]:
        """Open leases that were told to stop."""
        return [lease_from_row(row) for row in tx.execute(_STOPPING).mappings()]

    def claimed_before(self, tx: Tx, scope: SystemScope, before: datetime) -> list[Lease]:
        """Leases that have run since before a time and were not told to stop."""
        rows = tx.execute(_CLAIMED, {"before": before}).mappings()
        return [lease_from_row(row) for row in rows]

    def oldest_unclaimed(self, tx: Tx, scope: SystemScope) -> datetime | None:
        """When the oldest of those was opened."""
        found = (
            select(_l.c.open_time)
            .where(_l.c.state == LeaseState.ASSIGNED.value)
            .order_by(_l.c.open_time)
            .limit(1)
        )
        opened: datetime | None = tx.execute(found).scalar()
        return opened

    def has_allocation(self, tx: Tx, scope: SystemScope, allocation_id: str) -> bool:
        """Whether the allocation has, or had, a lease."""
        return tx.execute(_ALLOCATION, {"id": allocation_id}).first() is not None

    def add_lease(self, tx: Tx, scope: SystemScope, lease: Lease) -> None:
        """Inserts; raises StaleWrite when the allocation has an open lease."""
        try:
            tx.execute_bulk(_LEASE_INSERT, [lease_row(lease)])
        except IntegrityError:
            raise StaleWrite from None

    def update_lease(self, tx: Tx, scope: SystemScope, before: Lease, after: Lease) -> None:
        """Writes `after` where `before` still stands; StaleWrite when it does not."""
        at = (before.workspace_id, before.lease_id, before.version)
        if tx.execute_bulk(_LEASE_UPDATE, [(*at, *lease_changes(after))]) != 1:
            raise StaleWrite

    def rebind(self, tx: Tx, scope: SystemScope, node_id: str, epoch: int) -> None:
        """Moves the open leases of a node to its new session."""
        tx.execute(_REBIND, {"at_node": node_id, "epoch": epoch})

    def next_seqs(self, tx: Tx, scope: SystemScope, lease: Lease, count: int) -> Sequence[int]:
        """The next `count` numbers in the history of the lease's job."""
        at = {"at_workspace": lease.workspace_id, "at_job": lease.job_id, "count": count}
        last = tx.execute(_HISTORY_UPDATE, at).scalar()
        if last is None:
            last = count
            row = {"workspace_id": lease.workspace_id, "job_id": lease.job_id, "seq": count}
            _insert(tx, _HISTORY_INSERT, row)
        return range(last - count + 1, last + 1)


def _insert(tx: Tx, statement: Any, values: dict[str, Any]) -> None:
    try:
        tx.execute(statement, values)
    except IntegrityError:
        raise StaleWrite from None


def _touched(result: Any) -> None:
    if result.rowcount != 1:
        raise StaleWrite
