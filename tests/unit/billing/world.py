"""Billing on a real database, driven by facts as the bus would bring them."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from junglegrid.billing.v1.billing_event_pb2 import BillingEvent
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1 import job_event_pb2, job_pb2
from junglegrid.nodes.v1 import lease_pb2, node_event_pb2
from sqlalchemy import text

from libs.clock import ManualClock
from libs.db import Database, Tx, connect
from libs.errors import Unavailable
from libs.ids import IdSource
from libs.tenancy import Tenant
from libs.wake import connect as connect_wake
from services.billing import consumers, convert, tables
from services.billing.config import BillingConfig
from services.billing.domain import Balance
from services.billing.repository import BillRows, LedgerRows
from services.billing.service import BillingService, HoldOrder

MIGRATIONS = Path(__file__).parents[3] / "services/billing/migrations"
WORKSPACE = Tenant("ws_1")
HOUR_PRICE = 3_600_000  # 1,000 micro-USD a second


class Jobs:
    """What jobs would answer; None when it does not."""

    def __init__(self) -> None:
        self.live: set[str] | None = set()

    async def lives(self, tenant: Tenant, job_id: str) -> bool:
        if self.live is None:
            raise Unavailable("jobs is away")
        return job_id in self.live


class World:
    """One database, one service, and the facts that have happened."""

    def __init__(self, folder: Path, clock: ManualClock | None = None, **settings: Any) -> None:
        self.clock = clock or ManualClock()
        self.config = BillingConfig(**settings)
        self.wake = connect_wake("memory://")
        self.ids = IdSource(self.clock)
        self.jobs = Jobs()
        self.database: Database = connect(
            f"sqlite:///{folder}/billing.db",
            metadata=tables.metadata,
            migrations=MIGRATIONS,
            clock=self.clock,
            service="billing",
        )
        self.service = BillingService(
            database=self.database,
            ledger=LedgerRows(),
            bills=BillRows(),
            jobs=self.jobs,
            ids=self.ids,
            clock=self.clock,
            wake=self.wake,
            config=self.config,
            tell=convert.event_maker(self.ids),
        )
        self.handlers = consumers.handlers(self.service)
        self.told: list[BillingEvent] = []
        self._news = asyncio.Event()
        self.database.on_outbox(self._tell)

    def _tell(self, events: Any) -> None:
        self.told += [BillingEvent.FromString(event.payload) for event in events]
        self._news.set()

    async def heard_about(self, name: str) -> None:
        """Returns once a fact of that name was committed."""
        while not self.facts(name):
            self._news.clear()
            await self._news.wait()

    def facts(self, name: str) -> list[Any]:
        return [getattr(each, name) for each in self.told if each.WhichOneof("fact") == name]

    async def hear(self, fact: Message, job_id: str = "job_1") -> None:
        meta = EventMeta(aggregate_id=job_id, workspace_id=WORKSPACE.workspace_id)
        handler = self.handlers[type(fact)]
        await self.database.write(lambda tx: handler(tx, meta, fact))

    async def reserve(
        self, amount: int, *, job_id: str = "job_1", attempt: int = 1, period: int = 0
    ) -> Any:
        order = HoldOrder(job_id, attempt, period, amount, HOUR_PRICE)
        return await self.service.reserve(WORKSPACE, order)

    async def credit(self, amount: int, reference: str = "start") -> None:
        await self.service.credit(WORKSPACE, reference, amount, "test")

    async def balance(self) -> Balance:
        return await self.service.get_balance(WORKSPACE)

    async def rows(self, query: str) -> list[Any]:
        return await self.database.read(lambda tx: list(_run(tx, query)))

    async def execute(self, statement: str) -> None:
        def work(tx: Tx) -> None:
            tx.execute(text(statement))

        await self.database.write(work)

    async def check(self) -> None:
        """I9 on the rows: balances are the sum of their postings, sum to 0 and are not negative;
        every hold is resolved at most once, whole."""
        moved: dict[str, int] = {}
        for debit, credit, amount in await self.rows(
            "SELECT debit_account, credit_account, amount_micros FROM postings"
        ):
            moved[debit] = moved.get(debit, 0) - amount
            moved[credit] = moved.get(credit, 0) + amount
        stored = dict(await self.rows("SELECT account_id, available_micros FROM balances"))
        assert {name: micros for name, micros in stored.items() if micros} == {
            name: micros for name, micros in moved.items() if micros
        }
        assert sum(stored.values()) == 0
        assert all(micros >= 0 for name, micros in stored.items() if "funding" not in name)
        wrong = await self.rows(
            "SELECT t.transfer_id, t.amount_micros, coalesce(sum(p.amount_micros), 0) AS moved"
            " FROM transfers t LEFT JOIN postings p USING (transfer_id)"
            " GROUP BY 1, 2 HAVING moved <> t.amount_micros"
        )
        assert not wrong
        bills = await self.rows(
            "SELECT b.job_id, b.held_micros, (SELECT coalesce(sum(t.amount_micros), 0)"
            " FROM transfers t LEFT JOIN transfers r ON r.pending_id = t.transfer_id"
            " WHERE t.job_id = b.job_id AND t.kind = 'pending' AND r.transfer_id IS NULL) AS held"
            " FROM bills b"
        )
        assert all(row.held_micros == row.held for row in bills)


def _run(tx: Tx, query: str) -> Any:
    return tx.execute(text(query))


def queued(attempt: int = 1, tasks: int = 1) -> Message:
    return job_event_pb2.JobQueued(attempt=attempt, tasks=tasks)


def finished(status: str, attempt: int = 1, *, lease_open: bool = False) -> Message:
    value = job_pb2.JobStatus.Value(f"JOB_STATUS_{status.upper()}")
    return job_event_pb2.JobFinished(status=value, attempt=attempt, lease_open=lease_open)


def claimed(at: datetime, attempt: int = 1, price: int = HOUR_PRICE) -> Message:
    fact = node_event_pb2.LeaseClaimed(lease=_lease(attempt), price_micros_per_hour=price)
    fact.claimed_time.FromDatetime(at)
    return fact


def closed(
    at: datetime,
    seconds: float | None,
    outcome: str = "exited",
    *,
    attempt: int = 1,
    task: int = 0,
    price: int = HOUR_PRICE,
) -> Message:
    """A lease claimed at `at` and exited `seconds` later; None: never claimed."""
    fact = node_event_pb2.LeaseClosed(
        lease=_lease(attempt, task),
        outcome=lease_pb2.LeaseOutcome.Value(f"LEASE_OUTCOME_{outcome.upper()}"),
        price_micros_per_hour=price,
    )
    if seconds is not None:
        end = at + timedelta(seconds=seconds)
        fact.claimed_time.FromDatetime(at)
        fact.exited_time.FromDatetime(end)
    fact.closed_time.FromDatetime(at + timedelta(seconds=seconds or 0))
    return fact


def _lease(attempt: int, task: int = 0) -> node_event_pb2.LeaseRef:
    return node_event_pb2.LeaseRef(
        lease_id=f"lease_{attempt}_{task}",
        job_id="job_1",
        attempt=attempt,
        task_index=task,
        allocation_id=f"alc_{attempt}_{task}",
        node_id=f"node_{task}",
    )
