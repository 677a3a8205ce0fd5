"""Inputs, and what they take up per workspace."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from libs.db import Tx
from libs.errors import StaleWrite
from libs.tenancy import SystemScope, Tenant
from services.artifacts.domain import Input, InputState, Stored, Usage
from services.artifacts.tables import input_usage, inputs

_OWN = inputs.c.workspace_id == bindparam("w")
_ONE = (_OWN, inputs.c.input_id == bindparam("i"))
_GET = select(inputs).where(*_ONE)
_GET_MANY = select(inputs).where(_OWN, inputs.c.input_id.in_(bindparam("ids", expanding=True)))
_NEWEST = select(inputs).where(_OWN).order_by(inputs.c.input_id.desc()).limit(bindparam("n"))
_BEFORE = _NEWEST.where(inputs.c.input_id < bindparam("before"))
_INSERT = insert(inputs)
_UPDATE = (
    update(inputs)
    .where(*_ONE, inputs.c.version == bindparam("v"))
    .values({column.name: bindparam(column.name) for column in inputs.c if not column.primary_key})
)
_DUE = (
    select(inputs)
    .where(inputs.c.due_time <= bindparam("now"))
    .order_by(inputs.c.due_time)
    .limit(bindparam("n"))
)
_DELETE = delete(inputs).where(*_ONE, inputs.c.version == bindparam("v"))
_USAGE = select(input_usage).where(input_usage.c.workspace_id == bindparam("w"))
_USAGE_INSERT = insert(input_usage)
_USAGE_UPDATE = (
    update(input_usage)
    .where(input_usage.c.workspace_id == bindparam("w"), input_usage.c.version == bindparam("v"))
    .values(
        {column.name: bindparam(column.name) for column in input_usage.c if not column.primary_key}
    )
)
_STORED = {"object_key", "size_bytes", "etag", "sha256"}


class InputsRepository:
    """Inputs and usage. Every method names whose rows it may touch."""

    def get(self, tx: Tx, tenant: Tenant, input_id: str) -> Input | None:
        """The tenant's input of this id."""
        row = tx.execute(_GET, {"w": tenant.workspace_id, "i": input_id}).one_or_none()
        return None if row is None else _input(row)

    def get_many(self, tx: Tx, tenant: Tenant, ids: Sequence[str]) -> dict[str, Input]:
        """Those of the ids that the tenant has."""
        rows = tx.execute(_GET_MANY, {"w": tenant.workspace_id, "ids": list(ids)}) if ids else ()
        return {row.input_id: _input(row) for row in rows}

    def page(self, tx: Tx, tenant: Tenant, before: str, limit: int) -> list[Input]:
        """At most `limit` inputs older than `before` (all, when empty), newest first."""
        found = {"w": tenant.workspace_id, "n": limit}
        if not before:
            return [_input(row) for row in tx.execute(_NEWEST, found)]
        return [_input(row) for row in tx.execute(_BEFORE, found | {"before": before})]

    def add(self, tx: Tx, tenant: Tenant, item: Input) -> None:
        """Inserts a slot."""
        key = {"workspace_id": tenant.workspace_id, "input_id": item.input_id}
        tx.execute(_INSERT, _values(item) | key | {"version": item.version})

    def update(self, tx: Tx, tenant: Tenant, item: Input) -> None:
        """Writes over the version that was read; raises StaleWrite when that is gone."""
        where = {"w": tenant.workspace_id, "i": item.input_id, "v": item.version}
        _touched(tx.execute(_UPDATE, _values(item) | where))

    def remove(self, tx: Tx, tenant: Tenant, item: Input) -> None:
        """Deletes the version that was read; raises StaleWrite when that is gone."""
        where = {"w": tenant.workspace_id, "i": item.input_id, "v": item.version}
        _touched(tx.execute(_DELETE, where))

    def due(self, tx: Tx, scope: SystemScope, now: datetime, limit: int) -> list[Input]:
        """Inputs of any workspace that the sweeper has to move on, longest due first."""
        return [_input(row) for row in tx.execute(_DUE, {"now": now, "n": limit})]

    def usage(self, tx: Tx, tenant: Tenant) -> Usage:
        """What the tenant's inputs take up."""
        row = tx.execute(_USAGE, {"w": tenant.workspace_id}).one_or_none()
        if row is None:
            return Usage()
        return Usage(row.inputs, row.pending, row.size_bytes, row.version)

    def save_usage(self, tx: Tx, tenant: Tenant, usage: Usage) -> None:
        """Writes over the version that was read; raises StaleWrite when that is gone."""
        values = {
            "inputs": usage.inputs,
            "pending": usage.pending,
            "size_bytes": usage.size_bytes,
            "version": usage.version + 1,
        }
        if usage.version:
            where = {"w": tenant.workspace_id, "v": usage.version}
            _touched(tx.execute(_USAGE_UPDATE, values | where))
            return
        try:
            tx.execute(_USAGE_INSERT, values | {"workspace_id": tenant.workspace_id})
        except IntegrityError:
            raise StaleWrite from None


def _touched(result: Any) -> None:
    if result.rowcount != 1:
        raise StaleWrite


def _input(row: Any) -> Input:
    values = dict(row._mapping)
    stored = {name: values.pop(name) for name in _STORED}
    values["state"] = InputState(values["state"])
    return Input(**values, stored=None if stored["object_key"] is None else Stored(**stored))


def _values(item: Input) -> dict[str, Any]:
    stored = item.stored
    return {
        "filename": item.filename,
        "content_type": item.content_type,
        "kind": item.kind,
        "declared_bytes": item.declared_bytes,
        "token_digest": item.token_digest,
        "create_time": item.create_time,
        "slot_expire_time": item.slot_expire_time,
        "due_time": item.due_time,
        "state": item.state.value,
        "upload_time": item.upload_time,
        "used_time": item.used_time,
        "object_key": stored and stored.object_key,
        "size_bytes": None if stored is None else stored.size_bytes,
        "etag": stored and stored.etag,
        "sha256": stored and stored.sha256,
        "version": item.version + 1,
    }
