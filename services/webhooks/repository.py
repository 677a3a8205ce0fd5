"""Rows <-> deliveries; reads; guarded updates."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, bindparam, delete, insert, select, update

from libs.db import Tx
from libs.errors import StaleWrite
from libs.tenancy import SystemScope, Tenant
from services.webhooks.domain.delivery import Delivery, DeliveryStatus
from services.webhooks.tables import deliveries as t

_WS: BindParameter[str] = bindparam("w")
_ADD = insert(t)
_OF_JOB = (
    select(t)
    .where(t.c.workspace_id == _WS, t.c.job_id == bindparam("j"))
    .order_by(t.c.created_time)
)
_MOVING = (
    "version",
    "status",
    "attempts",
    "due",
    "finished_time",
    "url",
    "body",
    "token",
    "last_status",
    "last_error",
)
_UPDATE = (
    update(t)
    .where(
        t.c.workspace_id == _WS, t.c.delivery_id == bindparam("d"), t.c.version == bindparam("v")
    )
    .values({name: bindparam(name, type_=t.c[name].type) for name in _MOVING})
)
_DUE = (
    select(t)
    .where(t.c.due.is_not(None), t.c.due <= bindparam("now"))
    .order_by(t.c.due)
    .limit(bindparam("n"))
)
_NEXT = select(t.c.due).where(t.c.due.is_not(None)).order_by(t.c.due).limit(1)
_EXPIRE = delete(t).where(t.c.finished_time < bindparam("before"))


class WebhooksRepository:
    """All rows of the service."""

    def add(self, tx: Tx, tenant: Tenant, delivery: Delivery) -> None:
        """A new delivery; the caller has looked whether the job has one."""
        if tenant.workspace_id != delivery.workspace_id:
            raise PermissionError("a delivery of another workspace was to be written")
        keys = {
            "workspace_id": delivery.workspace_id,
            "delivery_id": delivery.delivery_id,
            "job_id": delivery.job_id,
            "job_status": delivery.job_status,
            "created_time": delivery.created_time,
        }
        tx.execute(_ADD, keys | _values(delivery))

    def of_job(self, tx: Tx, tenant: Tenant, job_id: str) -> list[Delivery]:
        """The deliveries of a job, oldest first."""
        found = tx.execute(_OF_JOB, {"w": tenant.workspace_id, "j": job_id})
        return [_delivery(row) for row in found]

    def update(self, tx: Tx, scope: SystemScope, delivery: Delivery) -> Delivery:
        """Writes what changed and returns the delivery with its next version; raises StaleWrite
        when somebody else moved the row."""
        values = _values(delivery) | {"version": delivery.version + 1}
        keys = {"w": delivery.workspace_id, "d": delivery.delivery_id, "v": delivery.version}
        if tx.execute(_UPDATE, values | keys).rowcount != 1:
            raise StaleWrite(delivery.delivery_id)
        return replace(delivery, version=delivery.version + 1)

    def due(self, tx: Tx, scope: SystemScope, now: datetime, limit: int) -> list[Delivery]:
        """Deliveries of all workspaces whose next try is due, longest first."""
        return [_delivery(row) for row in tx.execute(_DUE, {"now": now, "n": limit})]

    def next_due(self, tx: Tx, scope: SystemScope) -> datetime | None:
        """When the next try of all workspaces is due."""
        found: datetime | None = tx.execute(_NEXT).scalar()
        return found

    def expire(self, tx: Tx, scope: SystemScope, before: datetime) -> int:
        """Deletes deliveries that ended before `before`; returns how many."""
        return tx.execute(_EXPIRE, {"before": before}).rowcount


def _values(delivery: Delivery) -> dict[str, Any]:
    return {
        "version": delivery.version,
        "status": delivery.status.value,
        "attempts": delivery.attempts,
        "due": delivery.due,
        "finished_time": delivery.finished_time,
        "url": delivery.url,
        "body": delivery.body,
        "token": delivery.token,
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
    }


def _delivery(row: Any) -> Delivery:
    return Delivery(
        workspace_id=row.workspace_id,
        delivery_id=row.delivery_id,
        job_id=row.job_id,
        job_status=row.job_status,
        created_time=row.created_time,
        due=row.due,
        status=DeliveryStatus(row.status),
        attempts=row.attempts,
        url=row.url,
        body=row.body,
        token=row.token,
        last_status=row.last_status,
        last_error=row.last_error,
        finished_time=row.finished_time,
        version=row.version,
    )
