"""Between rows and aggregates. Columns are named like fields; only what is nested needs a word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Any

from libs.db.types import from_micros, to_micros
from services.nodes.domain import (
    Gpu,
    GpuNeed,
    Inventory,
    Lease,
    LeaseState,
    Node,
    NodeState,
    Outcome,
    ProcessExit,
    Resources,
    Terms,
)

_NODE_FIXED = frozenset({"node_id", "prefix", "digest", "create_time"})
_LEASE_FIXED = frozenset(
    {
        *("workspace_id", "lease_id", "job_id", "attempt", "task_index", "allocation_id"),
        *("node_id", "terms", "open_time"),
    }
)
_NODE_NESTED = frozenset({"inventory", "state"})
_LEASE_NESTED = frozenset({"terms", "state", "exit", "outcome"})


def _names(cls: Any, without: frozenset[str]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(cls) if each.name not in without)


_NODE_PLAIN = _names(Node, _NODE_NESTED)
_NODE_CHANGING = _names(Node, _NODE_NESTED | _NODE_FIXED)
_LEASE_PLAIN = _names(Lease, _LEASE_NESTED)
_LEASE_CHANGES_PLAIN = _names(Lease, _LEASE_NESTED | _LEASE_FIXED)
_LEASE_VALUES = attrgetter(*_LEASE_PLAIN)
_LEASE_CHANGES = attrgetter(*_LEASE_CHANGES_PLAIN)
LEASE_COLUMNS = (*_LEASE_PLAIN, "state", "exit", "outcome", "terms")
LEASE_CHANGING = (*_LEASE_CHANGES_PLAIN, "state", "exit", "outcome")
_GPU = _names(Gpu, frozenset())
_GPU_NEED = _names(GpuNeed, frozenset())
_INVENTORY = _names(Inventory, frozenset({"gpus"}))
_TERMS = _names(Terms, frozenset({"resources", "gpus"}))
_EXIT = _names(ProcessExit, frozenset({"started_node_time", "finished_node_time"}))


def node_row(node: Node) -> dict[str, Any]:
    """All columns of a node."""
    row = {name: getattr(node, name) for name in _NODE_PLAIN}
    return row | {"inventory": _inventory_json(node.inventory), "state": node.state.value}


def node_changes(node: Node) -> dict[str, Any]:
    """The columns of a node that may change."""
    row = {name: getattr(node, name) for name in _NODE_CHANGING}
    return row | {"inventory": _inventory_json(node.inventory), "state": node.state.value}


def node_from_row(row: Mapping[Any, Any]) -> Node:
    """The node in a row."""
    plain = {name: row[name] for name in _NODE_PLAIN}
    stored = row["inventory"]
    inventory = Inventory(
        gpus=tuple(Gpu(**gpu) for gpu in stored["gpus"]),
        **{name: _tuple(stored[name]) for name in _INVENTORY},
    )
    return Node(inventory=inventory, state=NodeState(row["state"]), **plain)


def lease_row(lease: Lease) -> list[Any]:
    """The values of LEASE_COLUMNS."""
    return [*_LEASE_VALUES(lease), *_lease_nested(lease), _terms_json(lease.terms)]


def lease_changes(lease: Lease) -> list[Any]:
    """The values of LEASE_CHANGING."""
    return [*_LEASE_CHANGES(lease), *_lease_nested(lease)]


def lease_from_row(row: Mapping[Any, Any]) -> Lease:
    """The lease in a row."""
    plain = {name: row[name] for name in _LEASE_PLAIN}
    return Lease(
        terms=_terms(row["terms"]),
        state=LeaseState(row["state"]),
        exit=_exit(row["exit"]),
        outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
        **plain,
    )


def _lease_nested(lease: Lease) -> list[Any]:
    outcome = None if lease.outcome is None else lease.outcome.value
    return [lease.state.value, _exit_json(lease.exit), outcome]


def _plain(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _inventory_json(inventory: Inventory) -> dict[str, Any]:
    return _plain(inventory, _INVENTORY) | {"gpus": [_plain(gpu, _GPU) for gpu in inventory.gpus]}


def _terms_json(terms: Terms) -> dict[str, Any]:
    needs = terms.resources
    return _plain(terms, _TERMS) | {
        "gpus": [_plain(gpu, _GPU) for gpu in terms.gpus],
        "resources": {
            "cpu_millis": needs.cpu_millis,
            "memory_bytes": needs.memory_bytes,
            "disk_bytes": needs.disk_bytes,
            "gpu": None if needs.gpu is None else _plain(needs.gpu, _GPU_NEED),
        },
    }


def _terms(stored: Mapping[str, Any]) -> Terms:
    needs = dict(stored["resources"])
    gpu = needs.pop("gpu")
    return Terms(
        resources=Resources(gpu=None if gpu is None else GpuNeed(**gpu), **needs),
        gpus=tuple(Gpu(**each) for each in stored["gpus"]),
        **{name: stored[name] for name in _TERMS},
    )


def _exit_json(exit: ProcessExit | None) -> dict[str, Any] | None:
    if exit is None:
        return None
    return _plain(exit, _EXIT) | {
        "started": _micros(exit.started_node_time),
        "finished": _micros(exit.finished_node_time),
    }


def _exit(stored: Mapping[str, Any] | None) -> ProcessExit | None:
    if stored is None:
        return None
    return ProcessExit(
        started_node_time=_time(stored["started"]),
        finished_node_time=_time(stored["finished"]),
        **{name: stored[name] for name in _EXIT},
    )


def _micros(time: datetime | None) -> int | None:
    return None if time is None else to_micros(time)


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
