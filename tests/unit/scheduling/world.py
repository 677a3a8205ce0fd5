"""Scheduling on a real database, driven by facts as the bus would bring them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.common.v1.resources_pb2 import Gpu, Resources
from junglegrid.jobs.v1 import job_event_pb2
from junglegrid.nodes.v1 import node_event_pb2
from junglegrid.scheduling.v1.placement_event_pb2 import PlacementCommitted, PlacementEvent
from sqlalchemy import text

from libs.clock import ManualClock
from libs.db import Database, OutboxEvent, Tx, connect
from libs.ids import IdSource
from libs.wake import connect as connect_wake
from services.scheduling import consumers, convert, tables
from services.scheduling.config import SchedulingConfig
from services.scheduling.loops import Planning
from services.scheduling.repository import GridRows, QueueRows
from services.scheduling.service import SchedulingService, State
from services.scheduling.service.state import Rows
from tests.unit.scheduling.grids import CATALOGUE, GIB

MIGRATIONS = Path(__file__).parents[3] / "services/scheduling/migrations"


class World:
    """One database, and a scheduler that can be built again on it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = ManualClock()
        self.config = SchedulingConfig(**settings)
        self.wake = connect_wake("memory://")
        self.ids = IdSource(self.clock)
        self.database: Database = connect(
            f"sqlite:///{folder}/scheduling.db",
            metadata=tables.metadata,
            migrations=MIGRATIONS,
            clock=self.clock,
            service="scheduling",
        )
        self.told: list[PlacementEvent] = []
        self.database.on_outbox(self._tell)
        self.node_seq = 0
        self.build()

    def build(self) -> None:
        """A new scheduler, as after a restart; `load` has to follow."""
        self.state = State(
            rows=Rows(GridRows(), QueueRows()),
            catalogue=CATALOGUE,
            ids=self.ids,
            wake=self.wake,
            config=self.config,
            tell=convert.event_maker(self.ids),
        )
        self.service = SchedulingService(database=self.database, state=self.state, clock=self.clock)
        self.handlers = consumers.handlers(self.service)
        self.planning = Planning(self.service, self.clock, self.wake, self.config)

    def _tell(self, events: Sequence[OutboxEvent]) -> None:
        self.told += [PlacementEvent.FromString(event.payload) for event in events]

    @property
    def placed(self) -> list[PlacementCommitted]:
        return [each.placed for each in self.told]

    async def hear(self, fact: Message, aggregate: str = "job_1", workspace: str = "ws_1") -> None:
        await self.hear_all([(fact, aggregate)], workspace)

    async def hear_all(self, facts: Sequence[tuple[Message, str]], workspace: str = "ws_1") -> None:
        """Facts of one batch, in one transaction."""

        def work(tx: Tx) -> None:
            for fact, aggregate in facts:
                meta = EventMeta(aggregate_id=aggregate, workspace_id=workspace)
                if isinstance(fact, node_event_pb2.NodeChanged):
                    self.node_seq += 1
                    meta.aggregate_seq = self.node_seq
                self.handlers[type(fact)](tx, meta, fact)

        await self.database.write(work)

    async def plan(self) -> int:
        """Everything that fits is placed."""
        count = 0
        while found := await self.service.place_batch():
            count += found
        return count

    async def rows(self, query: str) -> list[Any]:
        return await self.database.read(lambda tx: list(tx.execute(text(query))))

    async def execute(self, statement: str) -> None:
        def work(tx: Tx) -> None:
            tx.execute(text(statement))

        await self.database.write(work)

    @property
    def in_step(self) -> bool:
        """The planner is not ahead of the rows."""
        return self.service.facts._ahead is None

    async def check(self) -> None:
        """I12 on the rows, and that the planner's memory says the same."""
        await self.check_rows()
        await self.check_memory()

    async def check_rows(self) -> None:
        """What is used of a node is what is held of it, and no GPU is held twice."""
        used = await self.rows(
            "SELECT n.node_id, used_cpu_millis, used_memory_bytes, used_slots, used_gpus,"
            " n.cpu_millis, n.memory_bytes,"
            " coalesce(sum(h.cpu_millis), 0), coalesce(sum(h.memory_bytes), 0), count(h.node_id),"
            " coalesce(sum(h.gpu_mask), 0)"
            " FROM nodes n LEFT JOIN holds h USING (node_id) GROUP BY n.node_id"
        )
        for row in used:
            assert tuple(row[1:5]) == tuple(row[7:11]), row
            assert row[1] <= row[5]
            assert row[2] <= row[6]
        held = [
            (node_id, uuid)
            for node_id, uuids in await self.rows("SELECT node_id, gpu_uuids FROM holds")
            for uuid in json.loads(uuids)
        ]
        assert len(held) == len(set(held))

    async def check_memory(self) -> None:
        """The planner knows what the rows say."""
        held = {row[0] for row in await self.rows("SELECT allocation_id FROM holds")}
        assert held == set(self.state.planner.grid.holds)
        waiting = await self.rows("SELECT job_id FROM entries WHERE state = 'waiting'")
        assert {row[0] for row in waiting} == set(self.state.planner.queue.entries)


def queued(attempt: int = 1, *, gpus: int = 0, cpu: int = 1_000, tasks: int = 1) -> Message:
    fact = job_event_pb2.JobQueued(
        attempt=attempt,
        resources=Resources(cpu_millis=cpu),
        tasks=tasks,
        timeout_seconds=600,
        reservation_id="res_1",
    )
    if gpus:
        fact.resources.gpu.count = gpus
    fact.submitted_time.FromDatetime(ManualClock().now() + timedelta(seconds=attempt))
    return fact


def finished() -> Message:
    return job_event_pb2.JobFinished(attempt=1)


def stop_requested(attempt: int = 1) -> Message:
    return job_event_pb2.JobStopRequested(attempt=attempt)


def closed(placement: PlacementCommitted, task: int = 0) -> Message:
    lease = node_event_pb2.LeaseRef(
        lease_id="lease_1", allocation_id=placement.allocations[task].allocation_id
    )
    return node_event_pb2.LeaseClosed(lease=lease)


def node(gpus: int = 0, *, state: str = "ONLINE", cpu: int = 4_000, price: int = 10) -> Message:
    fact = node_event_pb2.NodeChanged(
        state=node_event_pb2.NodeState.Value(f"NODE_STATE_{state}"),
        gpu_price_micros_per_hour=price,
        cpu_price_micros_per_hour=price,
        region="us-east",
    )
    fact.inventory.cpu_millis = cpu
    fact.inventory.memory_bytes = 8 * GIB
    fact.inventory.disk_bytes = 8 * GIB
    fact.inventory.runtimes.append("sandbox")
    for index in range(gpus):
        fact.inventory.gpus.append(
            Gpu(index=index, uuid=f"gpu-{index}", name="NVIDIA L4", memory_bytes=24 * GIB)
        )
    return fact
