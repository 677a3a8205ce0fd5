"""A process that tells facts from one service to another until it is killed or has caught up.

    python -m tests.unit.libs.crash_pipeline HOME FAILPOINTS send|drain

`send` emits for ever, one line per acknowledged write; `drain` ends when all facts have arrived.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1.job_event_pb2 import JobQueued
from sqlalchemy import func, select

from libs import failpoints
from libs.bus import Consumer, Relay, connect
from libs.clock import SystemClock
from libs.db import Database, Tx
from tests.unit.libs.bus_parts import SEEN, TABLES, open_database, queued

KEYS = 7
TOLD = select(func.count()).select_from(TABLES.outbox)
HEARD = select(func.count()).select_from(SEEN)
LAST = select(func.max(TABLES.outbox.c.aggregate_seq)).where(
    TABLES.outbox.c.topic == "junglegrid.jobs.v1.JobEvent"
)


def hear(tx: Tx, meta: EventMeta, fact: Any) -> None:
    tx.execute(SEEN.insert(), {"job_id": meta.aggregate_id, "attempt": fact.attempt})


async def send(sender: Database, key: str) -> None:
    """Emits 1, 2, 3 ... under one key, from where an earlier life stopped."""

    def work(tx: Tx) -> None:
        last = tx.execute(LAST.where(TABLES.outbox.c.key == key)).scalar_one()
        tx.emit(queued(key, (last or 0) + 1))

    while True:
        await sender.write(work)
        sys.stdout.write("told\n")
        sys.stdout.flush()


async def drain(sender: Database, receiver: Database) -> None:
    """Returns when the receiver has as many rows as the sender has facts."""
    told = await sender.read(lambda tx: int(tx.execute(TOLD).scalar_one()))
    while await receiver.read(lambda tx: int(tx.execute(HEARD).scalar_one())) < told:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def main(home: Path, points: str, mode: str) -> None:
    clock = SystemClock()
    sender, receiver = (open_database(home, clock, name) for name in ("sender", "receiver"))
    bus = connect(f"embedded:///{home}/bus.db", clock=clock)
    consumer = Consumer(bus, receiver, "receiver", {JobQueued: hear}, clock)
    parts = (sender, receiver, bus, consumer, Relay(sender, bus, clock))
    for part in parts:
        await part.start()
    failpoints.arm(points)
    if mode == "send":
        await asyncio.gather(*(send(sender, f"job_{n}") for n in range(KEYS)))
    await drain(sender, receiver)
    for part in reversed(parts):
        await part.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
