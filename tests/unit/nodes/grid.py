"""nodes on a real database, with the clock in hand and jobs and bus at its edges replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from junglegrid.jobs.v1 import launch_pb2

from libs.bus.events import decode, record
from libs.clock import ManualClock
from libs.db import Database, OutboxEvent, Tx
from libs.ids import IdSource
from libs.tenancy import Tenant
from services.nodes import convert, tables
from services.nodes.config import NodesConfig
from services.nodes.domain import (
    Claim,
    Gpu,
    Hello,
    Inventory,
    Lease,
    NodeReport,
    Placement,
    Report,
    Resources,
    Slot,
    TokenDraft,
)
from services.nodes.repository import NodesRepository
from services.nodes.service import Deps, Enrolled, NodesService
from services.nodes.service.deps import SCOPE
from services.nodes.session import NodeSession, Sessions

TENANT = Tenant("ws_1")
INVENTORY = Inventory(
    gpus=(Gpu(0, "GPU-0", "L4 (simulated)", 24 << 30, "nvidia", True),),
    cpu_millis=4000,
    memory_bytes=8 << 30,
    disk_bytes=100 << 30,
    runtimes=("sandbox",),
    simulated=True,
)


@dataclass
class FakeLaunches:
    """jobs: gives a launch, or what `answer` raises. `gate` holds calls back until it is set."""

    asked: list[str] = field(default_factory=list)
    answer: Callable[[Lease], Any] = lambda lease: launch_pb2.LaunchSpec(image="python:3.11")
    gate: asyncio.Event | None = None

    async def get_launch(self, lease: Lease) -> Any:
        self.asked.append(lease.lease_id)
        if self.gate is not None:
            await self.gate.wait()
        return self.answer(lease)


@dataclass
class Grid:
    """The service under test and what a test asks of it."""

    clock: ManualClock
    database: Database
    service: NodesService
    deps: Deps
    launches: FakeLaunches
    told: list[OutboxEvent]
    allocations: int = 0

    def facts(self, kind: str | None = None) -> list[Any]:
        """What was told, in order; `kind` is the name of the fact in its oneof."""
        found = []
        for event in self.told:
            _, message = decode(record(event))
            name = message.WhichOneof("fact")
            assert name is not None
            if kind is None or kind == name:
                found.append(getattr(message, name))
        return found

    def kinds(self) -> list[str]:
        """The names of the facts of leases, in order."""
        topic = "junglegrid.nodes.v1.LeaseEvent"
        messages = [decode(record(each))[1] for each in self.told if each.topic == topic]
        return [str(message.WhichOneof("fact")) for message in messages]

    async def node(self, name: str = "n") -> Enrolled:
        draft = TokenDraft("ws_provider", "Provider", "", 500_000, 20_000, 0.0)
        token, _ = await self.service.enrolment.create_enrolment_token(draft)
        return await self.service.enrolment.enrol(token, name, "us-east", INVENTORY)

    async def session(self, node_id: str, held: tuple[str, ...] = ()) -> NodeSession:
        report = NodeReport(seq=1, inventory=INVENTORY)
        return await self.service.streams.open_session(node_id, Hello("1", held), report)

    async def online(self) -> NodeSession:
        return await self.session((await self.node()).node_id)

    async def place(self, node_id: str, job_id: str = "job_1", attempt: int = 1) -> Lease:
        """Opens a lease as the consumer does; returns it as stored."""
        self.allocations += 1
        slot = Slot(f"alc_{self.allocations}", 0, node_id, Resources(1000, 1 << 30, 1 << 30), ())
        placement = Placement("plc_1", job_id, attempt, [slot], 360_000, "res_1", 600, False)
        await self.database.write(
            lambda tx: self.service.leases.apply_placed(tx, TENANT, placement)
        )
        found = await self.leases()
        return next(each for each in found if each.allocation_id == slot.allocation_id)

    async def claim(self, session: NodeSession, lease: Lease) -> Claim:
        return await self.service.claims.start_claim(
            session.node_id, session.epoch, lease.lease_id, lease.attempt
        )

    async def report(self, session: NodeSession, *reports: Report) -> None:
        report = NodeReport(seq=session.ack_seq + 1, leases=reports)
        await self.service.streams.record(session, report)

    async def stop(self, job_id: str, attempt: int = 1) -> None:
        await self.database.write(
            lambda tx: self.service.leases.apply_stop(tx, job_id, attempt, "user")
        )

    async def lease(self, lease_id: str) -> Lease:
        found = await self.database.read(lambda tx: self.deps.repository.lease(tx, SCOPE, lease_id))
        assert found is not None
        return found

    async def leases(self) -> list[Lease]:
        def all_of_them(tx: Tx) -> list[str]:
            return [row.lease_id for row in tx.execute(tables.leases.select())]

        return [await self.lease(each) for each in await self.database.read(all_of_them)]


def new_grid(
    clock: ManualClock, database: Database, config: NodesConfig, told: list[OutboxEvent]
) -> Grid:
    ids, launches = IdSource(clock), FakeLaunches()
    deps = Deps(
        database=database,
        repository=NodesRepository(),
        ids=ids,
        clock=clock,
        config=config,
        sessions=Sessions(),
        launches=launches,
        lease_event=partial(convert.lease_event, ids),
        node_event=partial(convert.node_event, ids),
        sign_grant=lambda lease, expires: f"grant {lease.lease_id} {expires:.0f}".encode(),
        sign_session=lambda node_id, epoch, expires: f"jgs_{node_id}_{epoch}",
    )
    return Grid(clock, database, NodesService(deps), deps, launches, told)


def reopened(grid: Grid) -> Grid:
    """The same tables under a new process."""
    return new_grid(grid.clock, grid.database, grid.deps.config, grid.told)
