"""What a unit of work and a fact cost, against plain sqlite3 commits measured in the same run.

    python -m tests.bench.limits_db [--seconds 1.0] [--folder DIR]

Durability of both sides: WAL, synchronous=FULL, so every commit is an fsync. CPU is of the whole
process, the load included.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1.job_event_pb2 import JobEvent, JobQueued
from sqlalchemy import Column, Integer, MetaData, Table, Text, bindparam, select

from libs import bus as buses
from libs import db as databases
from libs.clock import SystemClock
from libs.db import Database, Tx, outbox_tables
from libs.ids import IdSource
from libs.process import Part

METADATA = MetaData()
ITEM = Table(
    "item",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
)
outbox_tables(METADATA)
INSERT = ITEM.insert()
SELECT = select(ITEM.c.version).where(ITEM.c.id == bindparam("of"))
UPDATE = (
    ITEM.update()
    .where(ITEM.c.id == bindparam("of"), ITEM.c.version == bindparam("seen"))
    .values(version=bindparam("next"))
)
MIGRATION = """
from tests.bench import limits_db
def upgrade(tx): tx.create_all(limits_db.METADATA)
"""
numbers = itertools.count(1)


@dataclass(frozen=True)
class Figure:
    """One line of the report."""

    name: str
    concurrency: int
    per_second: float
    cpu_microseconds: float
    p50_milliseconds: float


def empty(tx: Tx) -> None:
    """A unit of work that touches nothing."""


def one(tx: Tx) -> None:
    """One row."""
    tx.execute(INSERT, {"id": next(numbers), "name": "a name", "version": 1})


def three(tx: Tx) -> None:
    """The usual unit of work: insert, read, guarded update."""
    number = next(numbers)
    tx.execute(INSERT, {"id": number, "name": "a name", "version": 1})
    version = tx.execute(SELECT, {"of": number}).scalar_one()
    tx.execute(UPDATE, {"of": number, "seen": version, "next": version + 1})


async def measure(
    name: str, work: Callable[[], Awaitable[Any]], concurrency: int, seconds: float
) -> Figure:
    """Runs `work` in `concurrency` loops for some time."""
    taken: list[float] = []
    stop = time.perf_counter() + seconds

    async def loop() -> None:
        while (began := time.perf_counter()) < stop:
            await work()
            taken.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(loop() for _ in range(concurrency)))
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Figure(
        name,
        concurrency,
        len(taken) / elapsed,
        cpu / len(taken) * 1e6,
        statistics.median(taken) * 1e3,
    )


def plain(folder: Path, seconds: float, statements: int) -> Figure:
    """The limit: sqlite3 alone, one thread, one commit per unit."""
    raw = sqlite3.connect(folder / f"plain{statements}.db", isolation_level=None)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("PRAGMA synchronous=FULL")
    raw.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, version INTEGER)")
    count, stop = 0, time.perf_counter() + seconds
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() < stop:
        count += 1
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO item VALUES (?, 'a name', 1)", (count,))
        if statements == 3:
            raw.execute("SELECT version FROM item WHERE id = ?", (count,)).fetchone()
            raw.execute("UPDATE item SET version = 2 WHERE id = ? AND version = 1", (count,))
        raw.execute("COMMIT")
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    raw.close()
    name = f"plain sqlite3, {statements} statement commit"
    return Figure(name, 1, count / elapsed, cpu / count * 1e6, elapsed / count * 1e3)


def open_database(folder: Path, service: str) -> Database:
    migrations = folder / "migrations"
    migrations.mkdir(exist_ok=True)
    (migrations / "0001_initial.py").write_text(MIGRATION)
    return databases.connect(
        f"sqlite:///{folder}/{service}.db",
        metadata=METADATA,
        migrations=migrations,
        clock=SystemClock(),
        service=service,
    )


async def writes(folder: Path, seconds: float) -> list[Figure]:
    """Units of work at 1, 16 and 64 callers, and point reads."""
    database = open_database(folder, "writes")
    await database.start()
    found = []
    for work in (empty, one, three):
        for concurrency in (1, 16, 64):
            name = f"write, {work.__name__}"
            found.append(
                await measure(name, lambda w=work: database.write(w), concurrency, seconds)  # type: ignore[misc]
            )
    read = lambda tx: tx.execute(SELECT, {"of": 1}).scalar()  # noqa: E731 - one use, one line
    found.append(await measure("read by key", lambda: database.read(read), 16, seconds))
    await database.stop()
    return found


class Pipeline:
    """Two services: a write that emits, the relay, the bus, and a consumer that writes a row."""

    def __init__(self, folder: Path) -> None:
        clock = SystemClock()
        self._ids = IdSource(clock)
        self._sender, self._receiver = (open_database(folder, name) for name in ("a", "b"))
        self._bus = buses.connect(f"embedded:///{folder}/bus.db", clock=clock)
        self._relay = buses.Relay(self._sender, self._bus, clock)
        self._consumer = buses.Consumer(
            self._bus, self._receiver, "b", {JobQueued: self._on_queued}, clock
        )
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self.parts: list[Part] = [
            self._sender,
            self._receiver,
            self._bus,
            self._relay,
            self._consumer,
        ]

    async def send(self) -> None:
        """Returns when the fact's effect is durable in the other service."""
        job = f"job_{next(numbers)}"
        heard = self._waiting[job] = asyncio.get_running_loop().create_future()
        await self._sender.write(lambda tx: self._emit(tx, job))
        await heard

    def _emit(self, tx: Tx, job: str) -> None:
        one(tx)
        message = JobEvent(queued=JobQueued(attempt=1))
        tx.emit(
            buses.event(
                self._ids,
                message,
                aggregate_id=job,
                aggregate_seq=1,
                workspace_id="ws_1",
                occurred_time=tx.now(),
            )
        )

    def _on_queued(self, tx: Tx, meta: EventMeta, fact: JobQueued) -> None:
        one(tx)
        heard = self._waiting.pop(meta.aggregate_id)
        tx.after_commit(lambda: heard.set_result(None))


async def facts(folder: Path, seconds: float) -> list[Figure]:
    """From the write to the durable effect elsewhere."""
    pipeline = Pipeline(folder)
    for part in pipeline.parts:
        await part.start()
    found = [
        await measure("fact: write to effect elsewhere", pipeline.send, concurrency, seconds)
        for concurrency in (1, 16, 64)
    ]
    for part in reversed(pipeline.parts):
        await part.stop()
    return found


async def bus_alone(folder: Path, seconds: float) -> Figure:
    """From publish to the subscriber's hands."""
    bus = buses.connect(f"embedded:///{folder}/alone.db", clock=SystemClock())
    await bus.start()
    subscription = bus.subscribe("g", ["t"])

    async def there() -> None:
        number = str(next(numbers))
        fetch = asyncio.ensure_future(subscription.fetch())
        await bus.publish([buses.Record("t", number, number, b"x" * 200)])
        await subscription.commit(await fetch)

    figure = await measure("bus: publish to consume", there, 1, seconds)
    await bus.stop()
    return figure


def report(figures: list[Figure]) -> None:
    out = sys.stdout
    out.write(f"{'':36}{'callers':>8}{'per second':>12}{'CPU us':>9}{'p50 ms':>9}\n")
    for f in figures:
        out.write(
            f"{f.name:36}{f.concurrency:8}{f.per_second:12,.0f}"
            f"{f.cpu_microseconds:9.0f}{f.p50_milliseconds:9.3f}\n"
        )


async def run(folder: Path, seconds: float) -> list[Figure]:
    found = [plain(folder, seconds, 1), plain(folder, seconds, 3)]
    found += await writes(folder, seconds)
    found.append(await bus_alone(folder, seconds))
    found += await facts(folder, seconds)
    return found


def main(arguments: Sequence[str] = ()) -> None:
    """Prints the figures; without arguments, as `make bench` does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--folder", type=Path, help="where to put the files; a real disk")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        figures = uvloop.run(run(Path(name), options.seconds))
    if options.json:
        sys.stdout.write(json.dumps([f.__dict__ for f in figures], indent=2) + "\n")
    else:
        report(figures)


if __name__ == "__main__":
    main(sys.argv[1:])
