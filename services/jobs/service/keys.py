"""Idempotency of submits: by Idempotency-Key and by client id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.db import Tx
from libs.tenancy import Tenant
from services.jobs.domain.submitted import Submitted
from services.jobs.errors import ClientIdTaken, IdempotencyKeyReused
from services.jobs.repository import CLIENT_ID, KEY, KeyRow
from services.jobs.service.ports import Tools


@dataclass(frozen=True, slots=True)
class Request:
    """The keys of one submit and the hash of its body."""

    idempotency_key: str
    client_id: str
    hash: bytes

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """(kind, value) of each key that was sent."""
        sent = ((KEY, self.idempotency_key), (CLIENT_ID, self.client_id))
        return tuple((kind, value) for kind, value in sent if value)

    @property
    def keyed(self) -> bool:
        """It can be recognised when it comes again."""
        return bool(self.idempotency_key or self.client_id)

    def rows(self, job_id: str, now: datetime) -> list[KeyRow]:
        """Its rows, in flight."""
        return [KeyRow(kind, value, self.hash, job_id, now) for kind, value in self.keys]


def known(tools: Tools, tx: Tx, tenant: Tenant, request: Request) -> Submitted | str | None:
    """The stored answer; or the id of a job whose submit is in flight; or None for a new request.

    Raises IdempotencyKeyReused and ClientIdTaken when a key stands for another body.
    """
    for kind, value in request.keys:
        row = tools.repository.find_key(tx, tenant, kind, value)
        if row is None:
            continue
        if row.request_hash != request.hash:
            raise IdempotencyKeyReused() if kind == KEY else ClientIdTaken(value)
        return Submitted.from_json(row.reply) if row.reply is not None else row.job_id
    return None
