"""Webhooks on a real database, with fakes of jobs and of the Internet."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1 import job_event_pb2, job_pb2

from libs.clock import ManualClock
from libs.db import connect
from libs.ids import IdSource
from libs.sealing import Sealer
from libs.tenancy import Tenant
from libs.wake import connect as connect_wake
from services.webhooks import consumers, tables
from services.webhooks.config import WebhooksConfig
from services.webhooks.domain.delivery import Answer, Delivery
from services.webhooks.domain.payload import CallbackFacts
from services.webhooks.repository import WebhooksRepository
from services.webhooks.service import Tools, WebhooksService

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORKSPACE = Tenant("ws_1")
FACTS = CallbackFacts(
    workspace_id="ws_1",
    job_id="job_1",
    url="https://a.example/hook",
    token="canary-token",
    metadata={"request_id": "req_123"},
    status="completed",
    status_reason="",
    created_time=NOW,
    queued_time=NOW + timedelta(seconds=1),
    started_time=None,
    finished_time=NOW + timedelta(minutes=3),
    image="image",
    command="python",
    args=("script.py",),
    exit_code=0,
    timed_out=False,
    assigned_node_id="node_1",
    provider_name="acme",
    provider_node_id="node_1",
)


class FakeJobs:
    """jobs."""

    def __init__(self) -> None:
        self.facts = FACTS
        self.error: Exception | None = None
        self.asked = 0

    async def get_callback(self, job_id: str) -> CallbackFacts:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return replace(self.facts, job_id=job_id)


class FakeSender:
    """The Internet: gives the answers one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer | Exception] = [Answer(200)]
        self.sent: list[tuple[str, bytes, dict[str, str]]] = []
        self.gate: asyncio.Event | None = None
        self.news = asyncio.Event()

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        self.sent.append((url, body, headers))
        self.news.set()
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """One database and one service."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.config = WebhooksConfig(**settings)
        self.jobs, self.sender = FakeJobs(), FakeSender()
        self.wake = connect_wake("memory://")
        self.draw = 0.5
        self.database = connect(
            f"sqlite:///{folder}/webhooks.db",
            metadata=tables.metadata,
            migrations=Path(__file__).parents[3] / "services/webhooks/migrations",
            clock=self.clock,
            service="webhooks",
        )
        self.service = WebhooksService(
            Tools(
                database=self.database,
                repository=WebhooksRepository(),
                ids=IdSource(self.clock),
                clock=self.clock,
                wake=self.wake,
                config=self.config,
                sealer=Sealer(b"k" * 32),
                jobs=self.jobs,
                sender=self.sender,
                draw=lambda: self.draw,
            )
        )

    async def finish(self, job_id: str = "job_1", *, callback: bool = True) -> None:
        fact = job_event_pb2.JobFinished(status=job_pb2.JOB_STATUS_COMPLETED, has_callback=callback)
        meta = EventMeta(aggregate_id=job_id, workspace_id="ws_1")
        handler = consumers.handlers(self.service)[type(fact)]
        if handler.wants(fact):  # type: ignore[attr-defined]
            await self.database.write(lambda tx: handler(tx, meta, fact))

    async def round(self) -> int:
        """All tries that are due now; returns how many."""
        claimed = await self.service.claim_due(100)
        for each in claimed:
            await self.service.deliver(each)
        return len(claimed)

    async def only(self, job_id: str = "job_1") -> Delivery:
        (found,) = await self.service.list_deliveries(WORKSPACE, job_id)
        return found

    async def until_due(self) -> float:
        due = (await self.only()).due
        assert due is not None
        seconds = (due - self.clock.now()).total_seconds()
        self.clock.advance(seconds)
        return seconds
