"""Use cases of webhooks: hear of an end, tell it, try again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from libs import failpoints
from libs.clock import Clock
from libs.db import Database, Tx
from libs.errors import GridError, NotFound, StaleWrite
from libs.ids import IdSource
from libs.sealing import SealBroken, Sealer
from libs.telemetry import logger, metrics
from libs.tenancy import SystemScope, Tenant
from libs.wake import Wake
from services.webhooks.config import WebhooksConfig
from services.webhooks.domain import delivery as moves
from services.webhooks.domain import payload
from services.webhooks.domain.delivery import Answer, Backoff, Delivery, DeliveryStatus
from services.webhooks.errors import AddressBlocked
from services.webhooks.repository import WebhooksRepository
from services.webhooks.service.ports import Jobs, Sender

CHANNEL = "webhooks.due"
_TABLE = "deliveries"
_SCOPE = SystemScope("deliveries of all workspaces")
_log = logger("webhooks")
_tries = metrics.counter("grid_callback_tries_total", "Tries to deliver a callback.", ("result",))
_BEFORE_SEND = failpoints.register(
    "webhooks.deliver.before_send", "the body is kept and the try is claimed, nothing is sent"
)
_AFTER_SEND = failpoints.register(
    "webhooks.deliver.after_send", "the receiver has answered, the row does not know it"
)


@dataclass(frozen=True, slots=True)
class Tools:
    """All that the use cases work with. `draw` gives numbers from 0 to 1."""

    database: Database
    repository: WebhooksRepository
    ids: IdSource
    clock: Clock
    wake: Wake
    config: WebhooksConfig
    sealer: Sealer
    jobs: Jobs
    sender: Sender
    draw: Callable[[], float]


class WebhooksService:
    """One delivery per final job that asked for a callback."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        config = tools.config
        self._backoff = Backoff(
            config.attempts_max, config.backoff_seconds, config.backoff_seconds_max
        )

    def record_finished(self, tx: Tx, tenant: Tenant, job_id: str, job_status: str) -> None:
        """A job that asked for a callback is final: its delivery is due at once. Harmless when
        repeated."""
        tools = self._tools
        if tools.repository.of_job(tx, tenant, job_id):
            return
        now = tx.now()
        tools.repository.add(
            tx,
            tenant,
            Delivery(
                workspace_id=tenant.workspace_id,
                delivery_id=tools.ids.new("dlv"),
                job_id=job_id,
                job_status=job_status,
                created_time=now,
                due=now,
            ),
        )
        tx.after_commit(lambda: tools.wake.notify(CHANNEL))

    async def list_deliveries(self, tenant: Tenant, job_id: str) -> list[Delivery]:
        """The deliveries of a job, oldest first; empty for an unknown one."""
        tools = self._tools
        return await tools.database.read(lambda tx: tools.repository.of_job(tx, tenant, job_id))

    async def claim_due(self, limit: int) -> list[Delivery]:
        """Begins the tries that are due, at most `limit`. Nobody else begins them again before
        claim_seconds have passed."""
        tools = self._tools

        def claim(tx: Tx) -> list[Delivery]:
            until = tx.now() + timedelta(seconds=tools.config.claim_seconds)
            due = tools.repository.due(tx, _SCOPE, tx.now(), limit)
            return [tools.repository.update(tx, _SCOPE, moves.claim(each, until)) for each in due]

        # Looking costs no commit; most wake-ups find nothing.
        if limit < 1 or not await tools.database.read(
            lambda tx: tools.repository.due(tx, _SCOPE, tx.now(), 1)
        ):
            return []
        return await tools.database.write(claim)

    async def next_due(self) -> datetime | None:
        """When the next try is due."""
        tools = self._tools
        return await tools.database.read(lambda tx: tools.repository.next_due(tx, _SCOPE))

    async def deliver(self, claimed: Delivery) -> Delivery:
        """One try of a delivery that `claim_due` gave out; returns it as it is afterwards."""
        try:
            ready = claimed if claimed.body is not None else await self._prepare(claimed)
            if ready.status.final or ready.body is None:
                return ready
            await _BEFORE_SEND.hit_async()
            settled = await self._try(ready)
            await _AFTER_SEND.hit_async()
            return await self._write(settled)
        except StaleWrite:
            # Another process took it over, because this one was slow.
            _log.warning("a delivery was taken over", delivery_id=claimed.delivery_id)
            return claimed

    async def expire(self) -> int:
        """Forgets deliveries that ended long ago; returns how many."""
        tools = self._tools
        days = timedelta(days=tools.config.retention_days)
        return await tools.database.write(
            lambda tx: tools.repository.expire(tx, _SCOPE, tx.now() - days)
        )

    async def _prepare(self, claimed: Delivery) -> Delivery:
        """Asks jobs once for what is to be told, and keeps the exact bytes."""
        tools = self._tools
        now = tools.clock.now()
        try:
            facts = await tools.jobs.get_callback(claimed.job_id)
        except NotFound:
            return await self._write(moves.give_up(claimed, "the job has no callback", now))
        except GridError as error:
            until = now + timedelta(seconds=tools.config.sweep_seconds)
            return await self._write(
                moves.postpone(claimed, f"jobs did not answer: {error.reason}", until)
            )
        token = self._sealed(claimed, facts.token) if facts.token else None
        kept = replace(claimed, url=facts.url, body=payload.body(facts), token=token)
        return await self._write(kept)

    async def _try(self, ready: Delivery) -> Delivery:
        tools = self._tools
        try:
            answer = await self._send(ready)
        except AddressBlocked as error:
            _tries.labels("blocked").inc()
            return moves.block(ready, error.why, tools.clock.now())
        except SealBroken:
            why = "the callback's token cannot be opened any more"
            return moves.give_up(ready, why, tools.clock.now())
        _tries.labels("taken" if answer.taken else "failed").inc()
        return moves.settle(ready, answer, tools.clock.now(), self._backoff, tools.draw())

    async def _send(self, ready: Delivery) -> Answer:
        tools, body = self._tools, ready.body or b""
        token = ""
        if ready.token is not None:
            token = tools.sealer.open(
                ready.token,
                table=_TABLE,
                workspace_id=ready.workspace_id,
                row_id=ready.delivery_id,
            ).decode()
        headers = payload.headers(
            ready.job_id,
            ready.job_status,
            body,
            tools.clock.now(),
            (token, tools.config.signing_secret),
        )
        return await tools.sender.send(ready.url, body, headers)

    def _sealed(self, delivery: Delivery, token: str) -> bytes:
        return self._tools.sealer.seal(
            token.encode(),
            table=_TABLE,
            workspace_id=delivery.workspace_id,
            row_id=delivery.delivery_id,
        )

    async def _write(self, delivery: Delivery) -> Delivery:
        tools = self._tools
        return await tools.database.write(lambda tx: tools.repository.update(tx, _SCOPE, delivery))


__all__ = ["CHANNEL", "Delivery", "DeliveryStatus", "Tools", "WebhooksService"]
