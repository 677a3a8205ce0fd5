"""A database, a bus with faults, and job events, for the tests of relay and consumer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from junglegrid.jobs.v1.job_event_pb2 import JobEvent, JobFinished, JobQueued
from sqlalchemy import Column, Integer, MetaData, Table, Text

from libs.bus import Bus, PartialPublish, Record, Subscription, event
from libs.clock import Clock, ManualClock
from libs.db import Database, OutboxEvent, connect, outbox_tables
from libs.ids import IdSource

METADATA = MetaData()
SEEN = Table(
    "seen",
    METADATA,
    Column("place", Integer, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
)
TABLES = outbox_tables(METADATA)
TOPIC = "junglegrid.jobs.v1.JobEvent"
MIGRATION = """
from tests.unit.libs.bus_parts import METADATA
def upgrade(tx): tx.create_all(METADATA)
"""


def open_database(folder: Path, clock: Clock, service: str = "svc") -> Database:
    migrations = folder / "migrations"
    migrations.mkdir(exist_ok=True)
    (migrations / "0001_initial.py").write_text(MIGRATION)
    return connect(
        f"sqlite:///{folder}/{service}.db",
        metadata=METADATA,
        migrations=migrations,
        clock=clock,
        service=service,
    )


class FaultyBus:
    """A bus in memory order that refuses what it is told to, and remembers what it took."""

    def __init__(self) -> None:
        self.name = "bus-1"
        self.taken: list[Record] = []
        self.syncs = 0
        self.down = False
        self.refused_keys: set[str] = set()
        self.on_publish: Callable[[], None] = lambda: None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def identity(self) -> str:
        return self.name

    async def publish(self, records: Sequence[Record]) -> None:
        self.on_publish()
        if self.down:
            raise ConnectionError("the broker is away")
        refused = [record for record in records if record.key in self.refused_keys]
        self.taken += [record for record in records if record.key not in self.refused_keys]
        if refused:
            raise PartialPublish({record.event_id: OSError() for record in refused})

    async def sync(self) -> None:
        self.syncs += 1

    def subscribe(self, group: str, topics: Sequence[str]) -> Subscription:
        raise NotImplementedError("the relay does not listen")

    def order(self) -> list[tuple[str, int]]:
        """Job and sequence of what was taken."""
        found = [JobEvent.FromString(record.payload).meta for record in self.taken]
        return [(meta.aggregate_id, meta.aggregate_seq) for meta in found]


_: type[Bus] = FaultyBus
IDS = IdSource(ManualClock())


def queued(job: str, seq: int = 1) -> OutboxEvent:
    """A JobQueued whose attempt is its sequence number."""
    return _event(JobEvent(queued=JobQueued(attempt=seq)), job, seq)


def finished(job: str, seq: int) -> OutboxEvent:
    return _event(JobEvent(finished=JobFinished(attempt=seq)), job, seq)


def _event(message: JobEvent, job: str, seq: int) -> OutboxEvent:
    return event(
        IDS,
        message,
        aggregate_id=job,
        aggregate_seq=seq,
        workspace_id="ws_1",
        occurred_time=ManualClock().now(),
    )
