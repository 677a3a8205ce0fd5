"""Idempotency rows: which submit a key belongs to, and what it was answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from libs.db import Tx
from libs.errors import StaleWrite
from libs.tenancy import SystemScope, Tenant
from services.jobs.tables import submit_keys as t

KEY, CLIENT_ID = "key", "id"

_FIND = select(t).where(
    t.c.workspace_id == bindparam("w"), t.c.kind == bindparam("k"), t.c.value == bindparam("v")
)
_ADD = insert(t)
_ANSWER = (
    update(t)
    .where(t.c.workspace_id == bindparam("w"), t.c.job_id == bindparam("j"))
    .values(reply=bindparam("r", type_=t.c.reply.type))
)
_REMOVE = delete(t).where(t.c.workspace_id == bindparam("w"), t.c.job_id == bindparam("j"))
_EXPIRE = delete(t).where(t.c.created_time < bindparam("before"), t.c.reply.is_not(None))


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key and the submit it stands for. `reply` is None while in flight."""

    kind: str
    value: str
    request_hash: bytes
    job_id: str
    created_time: datetime
    reply: Mapping[str, Any] | None = None


class KeyRows:
    """Part of JobsRepository."""

    def find_key(self, tx: Tx, tenant: Tenant, kind: str, value: str) -> KeyRow | None:
        """The row of a key."""
        keys = {"w": tenant.workspace_id, "k": kind, "v": value}
        row = tx.execute(_FIND, keys).first()
        if row is None:
            return None
        return KeyRow(
            row.kind, row.value, row.request_hash, row.job_id, row.created_time, row.reply
        )

    def add_keys(self, tx: Tx, tenant: Tenant, keys: list[KeyRow]) -> None:
        """New rows, in flight. Raises StaleWrite when another submit has just taken a key."""
        rows = [
            {
                "workspace_id": tenant.workspace_id,
                "kind": key.kind,
                "value": key.value,
                "request_hash": key.request_hash,
                "job_id": key.job_id,
                "created_time": key.created_time,
                "reply": None,
            }
            for key in keys
        ]
        try:
            if rows:
                tx.execute(_ADD, rows)
        except IntegrityError:
            raise StaleWrite("a key was taken") from None

    def answer_keys(self, tx: Tx, tenant: Tenant, job_id: str, reply: Mapping[str, Any]) -> None:
        """The answer that repeats get from now on."""
        tx.execute(_ANSWER, {"w": tenant.workspace_id, "j": job_id, "r": dict(reply)})

    def remove_keys(self, tx: Tx, tenant: Tenant, job_id: str) -> None:
        """Forgets the keys of a submit that came to nothing."""
        tx.execute(_REMOVE, {"w": tenant.workspace_id, "j": job_id})

    def expire_keys(self, tx: Tx, scope: SystemScope, before: datetime) -> int:
        """Deletes answered keys older than `before` in all workspaces; returns how many."""
        return tx.execute(_EXPIRE, {"before": before}).rowcount
