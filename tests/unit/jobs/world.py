"""Jobs on a real database, with fakes of the services it asks, driven by facts as the bus would
bring them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from junglegrid.billing.v1 import billing_event_pb2 as billing_pb
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.common.v1.resources_pb2 import Gpu as GpuPb
from junglegrid.jobs.v1.job_event_pb2 import JobEvent
from junglegrid.nodes.v1 import lease_pb2
from junglegrid.nodes.v1 import node_event_pb2 as nodes_pb
from sqlalchemy import text

from libs.clock import ManualClock
from libs.db import Database, connect
from libs.errors import GridError
from libs.ids import IdSource
from libs.sealing import Sealer
from libs.tenancy import SystemScope, Tenant
from services.jobs import consumers, tables
from services.jobs.config import JobsConfig
from services.jobs.convert.facts import teller
from services.jobs.domain.draft import CallbackDraft, Draft, Wishes
from services.jobs.domain.job import Gpu, Job
from services.jobs.domain.launch import Mount
from services.jobs.domain.quote import Quote
from services.jobs.domain.shown import LogTails
from services.jobs.domain.spec import InputFile, Spec
from services.jobs.domain.submitted import Submitted
from services.jobs.errors import HoldGone
from services.jobs.repository import JobsRepository
from services.jobs.service import JobsService, Tools
from services.jobs.service.ports import Reserved

MIGRATIONS = Path(__file__).parents[3] / "services/jobs/migrations"
WORKSPACE = Tenant("ws_1")
OTHER = Tenant("ws_2")
SYSTEM = SystemScope("test")
CEILING = 3_600_000  # 1,000 micro-USD a second
L4 = Gpu("nvidia", "NVIDIA L4", 1, 24_000_000_000, simulated=False)
FITS = Quote(live_candidates=1, immediate=True, price=CEILING // 2, price_ceiling=CEILING, gpu=L4)
NOTHING_FITS = Quote(unavailable_code="NO_NODES_ONLINE", unavailable_reason="No node is online.")
DRAFT = Draft(
    name="demo",
    image="python:3.11",
    workload_type="batch",
    command=("python", "-c", "print(42)"),
    model_size_gb=1.0,
)
SECRETIVE = replace(
    DRAFT,
    environment={"TOKEN": "canary-environment"},
    callback=CallbackDraft("https://example.com/hook", "canary-token", {"request_id": "req_1"}),
)


@dataclass
class FakeQuotes:
    """scheduling."""

    answer: Quote = FITS
    error: GridError | None = None
    asked: list[Spec] = field(default_factory=list)
    reason: str = ""

    async def quote(self, tenant: Tenant, spec: Spec) -> Quote:
        self.asked.append(spec)
        if self.error is not None:
            raise self.error
        return self.answer

    async def explain(self, tenant: Tenant, job_id: str) -> str:
        if self.error is not None:
            raise self.error
        return self.reason


@dataclass
class FakeHolds:
    """billing. `gate` keeps reservations waiting while it is closed."""

    error: GridError | None = None
    error_after: GridError | None = None
    held: dict[str, int] = field(default_factory=dict)
    calls: list[tuple[str, int, int]] = field(default_factory=list)
    given_back: set[str] = field(default_factory=set)
    gate: asyncio.Event | None = None
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    async def reserve(
        self, tenant: Tenant, job_id: str, amount_micros: int, price_micros_per_hour: int
    ) -> Reserved:
        self.calls.append((job_id, amount_micros, price_micros_per_hour))
        if self.gate is not None:
            self.waiting.set()
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if job_id in self.given_back:
            raise HoldGone()
        self.held[job_id] = amount_micros
        if self.error_after is not None:
            raise self.error_after
        return Reserved(f"res_{job_id}", amount_micros)

    async def release(self, tenant: Tenant, job_id: str) -> None:
        if self.error is not None:
            raise self.error
        self.held.pop(job_id, None)


@dataclass
class FakeInputs:
    """artifacts."""

    error: GridError | None = None

    async def resolve(
        self, tenant: Tenant, input_ids: Sequence[str], script_ids: Sequence[str]
    ) -> tuple[InputFile, ...]:
        if self.error is not None:
            raise self.error
        inputs = [InputFile(each, f"/workspace/inputs/{each}", 3) for each in input_ids]
        scripts = [InputFile(each, f"/workspace/scripts/{each}", 4) for each in script_ids]
        return (*inputs, *scripts)

    async def grant(self, tenant: Tenant, input_ids: Sequence[str]) -> tuple[Mount, ...]:
        return tuple(
            Mount(each, "elsewhere", f"https://objects/{each}?signature=s", 3, "ab" * 32)
            for each in input_ids
        )


@dataclass
class FakeTails:
    """logs."""

    answer: LogTails = field(default_factory=lambda: LogTails("out", "err", complete=True))
    error: GridError | None = None
    calls: int = 0

    async def tails(self, tenant: Tenant, job_id: str, lines: int, bytes: int) -> LogTails:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.answer


class World:
    """One database, one service, and the facts that it told."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = ManualClock()
        self.config = JobsConfig(**settings)
        self.ids = IdSource(self.clock)
        self.quotes, self.holds = FakeQuotes(), FakeHolds()
        self.inputs, self.tails = FakeInputs(), FakeTails()
        self.repository = JobsRepository()
        self.database: Database = connect(
            f"sqlite:///{folder}/jobs.db",
            metadata=tables.metadata,
            migrations=MIGRATIONS,
            clock=self.clock,
            service="jobs",
        )
        self.tools = Tools(
            database=self.database,
            repository=self.repository,
            ids=self.ids,
            clock=self.clock,
            config=self.config,
            sealer=Sealer(b"k" * 32),
            cursor_key=b"c" * 32,
            tell=teller(self.ids),
            quotes=self.quotes,
            holds=self.holds,
            inputs=self.inputs,
            tails=self.tails,
        )
        self.service = JobsService(self.tools)
        self.handlers = consumers.handlers(self.service)
        self.told: list[JobEvent] = []
        self.news = asyncio.Event()
        self.database.on_outbox(self._tell)

    def _tell(self, events: Any) -> None:
        self.news.set()
        self.told += [JobEvent.FromString(event.payload) for event in events]

    def facts(self, name: str) -> list[Any]:
        return [getattr(each, name) for each in self.told if each.WhichOneof("fact") == name]

    async def submit(
        self, draft: Draft = DRAFT, *, key: str = "", tenant: Tenant = WORKSPACE
    ) -> Submitted:
        digest = hashlib.sha256(repr((draft, sorted(draft.environment))).encode()).digest()
        return await self.service.submit_job(
            tenant, draft, idempotency_key=key, request_hash=digest
        )

    async def job(self, job_id: str, tenant: Tenant = WORKSPACE) -> Job:
        return (await self.service.read.get_job(tenant, job_id)).job

    async def hear(self, fact: Message, job_id: str, tenant: Tenant = WORKSPACE) -> None:
        meta = EventMeta(aggregate_id=job_id, workspace_id=tenant.workspace_id)
        handler = self.handlers[type(fact)]
        await self.database.write(lambda tx: handler(tx, meta, fact))

    async def names(self, job_id: str) -> list[str]:
        events = await self.service.read.list_job_events(WORKSPACE, job_id)
        return [each.name for each in events.items]

    async def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        names = [
            "jobs", "attempts", "activities", "job_secrets", "submit_keys", "outbox",
        ]  # fmt: skip
        return await self.database.read(
            lambda tx: {
                name: int(tx.execute(text(f"SELECT count(*) FROM {name}")).scalar_one())
                for name in names
            }
        )

    # What a node does.

    async def open(self, job_id: str, attempt: int = 1, node: str = "node_1") -> None:
        fact = nodes_pb.LeaseOpened(
            lease=lease(job_id, attempt, node),
            region="us-east",
            provider_name="acme",
            price_micros_per_hour=CEILING,
            gpus=[GpuPb(name="NVIDIA L4", vendor="nvidia", memory_bytes=24 * 10**9)],
        )
        await self.hear(fact, job_id)

    async def claim(self, job_id: str, attempt: int = 1, node: str = "node_1") -> None:
        fact = nodes_pb.LeaseClaimed(lease=lease(job_id, attempt, node))
        fact.claimed_time.FromDatetime(self.clock.now())
        await self.hear(fact, job_id)

    async def start(
        self, job_id: str, attempt: int = 1, phases: Sequence[str] = ("runtime_preparation",)
    ) -> None:
        fact = nodes_pb.LeaseStarted(
            lease=lease(job_id, attempt),
            phases=[lease_pb2.PhaseReport(phase=name) for name in phases],
            runtime="sandbox",
        )
        fact.started_time.FromDatetime(self.clock.now())
        await self.hear(fact, job_id)

    async def exit(self, job_id: str, code: int = 0, attempt: int = 1, **more: Any) -> None:
        fact = nodes_pb.LeaseExited(
            lease=lease(job_id, attempt), exit=lease_pb2.ProcessExit(code=code, **more)
        )
        fact.exited_time.FromDatetime(self.clock.now())
        await self.hear(fact, job_id)

    async def close(self, job_id: str, fact: nodes_pb.LeaseClosed) -> None:
        fact.closed_time.FromDatetime(self.clock.now())
        await self.hear(fact, job_id)

    async def run(self, job_id: str, code: int = 0, attempt: int = 1) -> None:
        """Opened to closed."""
        await self.open(job_id, attempt)
        await self.claim(job_id, attempt)
        await self.start(job_id, attempt)
        await self.exit(job_id, code, attempt)
        await self.close(job_id, ended(job_id, code, attempt))

    async def settle(self, job_id: str, cost: int) -> None:
        fact = billing_pb.AttemptSettled(
            attempt=1, cost_micros=cost, billed_micros=2_000_000, total_cost_micros=cost
        )
        await self.hear(fact, job_id)

    async def pass_time(self, seconds: float) -> datetime:
        self.clock.advance(seconds)
        return self.clock.now()


def lease(job_id: str, attempt: int = 1, node: str = "node_1") -> nodes_pb.LeaseRef:
    return nodes_pb.LeaseRef(
        lease_id=f"lease_{attempt}",
        job_id=job_id,
        attempt=attempt,
        node_id=node,
        session_epoch=1,
    )


def ended(job_id: str, code: int = 0, attempt: int = 1, **exit: Any) -> nodes_pb.LeaseClosed:
    return nodes_pb.LeaseClosed(
        lease=lease(job_id, attempt),
        outcome=lease_pb2.LEASE_OUTCOME_EXITED,
        exit=lease_pb2.ProcessExit(code=code, **exit),
    )


def lost(
    job_id: str,
    attempt: int = 1,
    outcome: lease_pb2.LeaseOutcome.ValueType = lease_pb2.LEASE_OUTCOME_NODE_LOST,
    node: str = "node_1",
) -> nodes_pb.LeaseClosed:
    return nodes_pb.LeaseClosed(lease=lease(job_id, attempt, node), outcome=outcome)


def wishing(draft: Draft = DRAFT, **wishes: Any) -> Draft:
    return replace(draft, wishes=(Wishes(**wishes),))


SECOND = timedelta(seconds=1)
