"""Rows of nodes and of what is held of them. Statements are built once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, Row, bindparam, delete, func, insert, select, update

from libs.db import Tx
from libs.tenancy import SystemScope
from services.scheduling.domain import Gpu, Hold, NodeInfo, Placement
from services.scheduling.tables import holds, nodes


@dataclass(frozen=True, slots=True)
class GridCounts:
    """Enough of the rows to notice that the planner has missed a change."""

    nodes: int
    versions: int
    holds: int


_INFO = [each.name for each in fields(NodeInfo)]
_NODE = select(*(nodes.c[name] for name in _INFO)).where(nodes.c.node_id == bindparam("id"))
_NODES = select(*(nodes.c[name] for name in _INFO))
_ADD_NODE = insert(nodes)
_KEYED: dict[str, BindParameter[Any]] = {
    name: bindparam(name) for name in _INFO if name != "node_id"
}
_UPDATE_NODE = update(nodes).where(nodes.c.node_id == bindparam("key_node")).values(_KEYED)
_HOLD = [each.name for each in fields(Hold)]
_HOLDS = select(*(holds.c[name] for name in _HOLD))
_HOLDS_OF_NODE = select(holds.c.allocation_id, holds.c.gpu_uuids).where(
    holds.c.node_id == bindparam("id")
)
_REMASK = (
    update(holds)
    .where(holds.c.allocation_id == bindparam("key_allocation"))
    .values(gpu_mask=bindparam("gpu_mask"))
)
_REMASK_NODE = (
    update(nodes)
    .where(nodes.c.node_id == bindparam("key_node"))
    .values(used_gpus=bindparam("used_gpus"))
)
_ADD_HOLDS = insert(holds)
_DROP_HOLD = (
    delete(holds)
    .where(holds.c.allocation_id == bindparam("id"))
    .returning(
        holds.c.node_id,
        holds.c.cpu_millis,
        holds.c.memory_bytes,
        holds.c.disk_bytes,
        holds.c.gpu_mask,
        holds.c.placed_time,
    )
)
_GIVE = (
    update(nodes)
    .where(nodes.c.node_id == bindparam("key_node"))
    .values(
        used_cpu_millis=nodes.c.used_cpu_millis - bindparam("cpu"),
        used_memory_bytes=nodes.c.used_memory_bytes - bindparam("memory"),
        used_disk_bytes=nodes.c.used_disk_bytes - bindparam("disk"),
        used_slots=nodes.c.used_slots - 1,
        used_gpus=nodes.c.used_gpus - bindparam("mask"),
    )
)
# The guard of I12: the node is as the planner saw it, and has what is taken, in this transaction.
_TAKE = (
    update(nodes)
    .where(
        nodes.c.node_id == bindparam("key_node"),
        nodes.c.version == bindparam("key_version"),
        nodes.c.open,
        nodes.c.used_cpu_millis + bindparam("cpu") <= nodes.c.cpu_millis,
        nodes.c.used_memory_bytes + bindparam("memory") <= nodes.c.memory_bytes,
        nodes.c.used_disk_bytes + bindparam("disk") <= nodes.c.disk_bytes,
        (nodes.c.slots == 0) | (nodes.c.used_slots + bindparam("tasks") <= nodes.c.slots),
        nodes.c.used_gpus.bitwise_and(bindparam("mask")) == 0,
    )
    .values(
        used_cpu_millis=nodes.c.used_cpu_millis + bindparam("cpu"),
        used_memory_bytes=nodes.c.used_memory_bytes + bindparam("memory"),
        used_disk_bytes=nodes.c.used_disk_bytes + bindparam("disk"),
        used_slots=nodes.c.used_slots + bindparam("tasks"),
        used_gpus=nodes.c.used_gpus + bindparam("mask"),
    )
)
_COUNT_NODES = select(func.count(), func.coalesce(func.sum(nodes.c.version), 0)).select_from(nodes)
_COUNT_HOLDS = select(func.count()).select_from(holds)


class GridRows:
    """Nodes and holds. They are the grid's, so every method takes the system's scope."""

    def node(self, tx: Tx, scope: SystemScope, node_id: str) -> NodeInfo | None:
        """A node as it last told."""
        row = tx.execute(_NODE, {"id": node_id}).first()
        return None if row is None else _node(row)

    def all_nodes(self, tx: Tx, scope: SystemScope) -> list[NodeInfo]:
        """Every node."""
        return [_node(row) for row in tx.execute(_NODES)]

    def all_holds(self, tx: Tx, scope: SystemScope) -> list[Hold]:
        """Everything that is held."""
        return [_hold(row) for row in tx.execute(_HOLDS)]

    def put_node(self, tx: Tx, scope: SystemScope, info: NodeInfo, before: NodeInfo | None) -> None:
        """Writes a node that is new or has changed; what is held of it stays held."""
        values = _node_row(info)
        if before is None:
            unused = {
                "used_cpu_millis": 0,
                "used_memory_bytes": 0,
                "used_disk_bytes": 0,
                "used_slots": 0,
                "used_gpus": 0,
            }
            tx.execute(_ADD_NODE, values | unused)
            return
        tx.execute(_UPDATE_NODE, values | {"key_node": info.node_id})
        if info.gpus != before.gpus:
            self._remask(tx, info)

    def _remask(self, tx: Tx, info: NodeInfo) -> None:
        """GPUs have moved in the list, so the bits of what is held move too."""
        used = 0
        for allocation_id, uuids in tx.execute(_HOLDS_OF_NODE, {"id": info.node_id}).all():
            mask = gpu_mask(info, uuids)
            used |= mask
            tx.execute(_REMASK, {"key_allocation": allocation_id, "gpu_mask": mask})
        tx.execute(_REMASK_NODE, {"key_node": info.node_id, "used_gpus": used})

    def take(
        self,
        tx: Tx,
        scope: SystemScope,
        placements: Sequence[Placement],
        infos: Mapping[str, NodeInfo],
    ) -> frozenset[str]:
        """Takes what the placements hold from the nodes' rows and writes the holds. Returns the
        nodes that are not as they were seen or have not enough left; then the caller rolls back."""
        all_holds = [hold for placement in placements for hold in placement.holds]
        masks = {
            hold.allocation_id: gpu_mask(infos[hold.node_id], hold.gpu_uuids) for hold in all_holds
        }
        stale = [
            node_id
            for node_id, values in _sums(all_holds, masks).items()
            if tx.execute(_TAKE, values | {"key_version": infos[node_id].version}).rowcount != 1
        ]
        if not stale:
            rows = [_hold_row(hold, masks[hold.allocation_id]) for hold in all_holds]
            tx.execute(_ADD_HOLDS, rows)
        return frozenset(stale)

    def free(self, tx: Tx, scope: SystemScope, allocation_id: str) -> datetime | None:
        """Gives back what one allocation holds; returns when it was placed, None when it holds
        nothing (any more)."""
        row = tx.execute(_DROP_HOLD, {"id": allocation_id}).first()
        if row is None:
            return None
        tx.execute(
            _GIVE,
            {
                "key_node": row.node_id,
                "cpu": row.cpu_millis,
                "memory": row.memory_bytes,
                "disk": row.disk_bytes,
                "mask": row.gpu_mask,
            },
        )
        placed: datetime = row.placed_time
        return placed

    def counts(self, tx: Tx, scope: SystemScope) -> GridCounts:
        """Enough to compare the planner's memory with."""
        there = tx.execute(_COUNT_NODES).one()
        return GridCounts(there[0], int(there[1]), tx.execute(_COUNT_HOLDS).scalar_one())


def gpu_mask(info: NodeInfo, uuids: Iterable[str]) -> int:
    """Bits of GPUs by their place in the node's list."""
    wanted = frozenset(uuids)
    return sum(1 << place for place, gpu in enumerate(info.gpus) if gpu.uuid in wanted)


def _sums(all_holds: Sequence[Hold], masks: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """What is taken of each node by all the holds."""
    found: dict[str, dict[str, Any]] = {}
    for hold in all_holds:
        node = found.setdefault(
            hold.node_id,
            {"key_node": hold.node_id, "cpu": 0, "memory": 0, "disk": 0, "tasks": 0, "mask": 0},
        )
        node["cpu"] += hold.cpu_millis
        node["memory"] += hold.memory_bytes
        node["disk"] += hold.disk_bytes
        node["tasks"] += 1
        node["mask"] += masks[hold.allocation_id]
    return found


def _node_row(info: NodeInfo) -> dict[str, Any]:
    values = {name: getattr(info, name) for name in _INFO}
    return values | {"gpus": [asdict(gpu) for gpu in info.gpus], "runtimes": list(info.runtimes)}


def _node(row: Row[Any]) -> NodeInfo:
    values = dict(row._mapping)
    values["gpus"] = tuple(Gpu(**gpu) for gpu in values["gpus"])
    values["runtimes"] = tuple(values["runtimes"])
    return NodeInfo(**values)


def _hold_row(hold: Hold, mask: int) -> dict[str, Any]:
    values = {name: getattr(hold, name) for name in _HOLD}
    return values | {"gpu_uuids": list(hold.gpu_uuids), "gpu_mask": mask}


def _hold(row: Row[Any]) -> Hold:
    values = dict(row._mapping)
    return Hold(**values | {"gpu_uuids": tuple(values["gpu_uuids"])})
