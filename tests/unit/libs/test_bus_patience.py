"""Facts that may wait gather into one commit; urgent ones take them along, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1.job_event_pb2 import JobEvent, JobFinished, JobQueued

from libs.bus import Consumer, Handler, Record, lazily, only, outbox_event
from libs.bus.dispatch import Dispatch
from libs.bus.embedded import EmbeddedBus
from libs.bus.events import record as record_of
from libs.clock import SystemClock
from libs.db import Database, Tx
from tests.unit.libs.bus_parts import open_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = open_database(tmp_path, SystemClock())
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[EmbeddedBus]:
    found = EmbeddedBus(tmp_path / "bus.db", SystemClock())
    await found.start()
    yield found
    await found.stop()


class Batches:
    """Which facts came in which transaction."""

    def __init__(self) -> None:
        self.found: list[list[str]] = []
        self.of: list[Tx] = []
        self.news = asyncio.Event()

    def __call__(self, tx: Tx, meta: EventMeta, fact: Any) -> None:
        if not self.of or self.of[-1] is not tx:
            self.of.append(tx)
            self.found.append([])
        self.found[-1].append(meta.event_id)
        tx.after_commit(self.news.set)

    async def total(self, count: int) -> list[list[str]]:
        async with asyncio.timeout(5):
            while sum(map(len, self.found)) < count:
                self.news.clear()
                await self.news.wait()
        return self.found


def told(name: str, *, finished: bool) -> Record:
    message = JobEvent(finished=JobFinished()) if finished else JobEvent(queued=JobQueued())
    message.meta.MergeFrom(EventMeta(event_id=name, aggregate_id="job_1", aggregate_seq=1))
    return record_of(outbox_event(message))


async def test_an_urgent_fact_takes_along_what_waits(bus: EmbeddedBus, database: Database) -> None:
    seen = Batches()
    handlers: dict[type[Message], Handler] = {JobFinished: lazily(seen), JobQueued: seen}
    consumer = Consumer(bus, database, "svc", handlers, SystemClock())
    await consumer.start()
    await bus.publish([told("a", finished=True)])
    await bus.publish([told("b", finished=True)])
    await bus.publish([told("c", finished=False)])
    assert await seen.total(3) == [["a", "b", "c"]]
    await consumer.stop()


async def test_what_waits_is_applied_after_a_moment(bus: EmbeddedBus, database: Database) -> None:
    seen = Batches()
    consumer = Consumer(bus, database, "svc", {JobFinished: lazily(seen)}, SystemClock())
    await consumer.start()
    await bus.publish([told("a", finished=True)])
    assert await seen.total(1) == [["a"]]
    await consumer.stop()


async def test_nothing_waits_while_the_condition_is_false(
    bus: EmbeddedBus, database: Database
) -> None:
    seen = Batches()
    handlers: dict[type[Message], Handler] = {JobFinished: lazily(seen, when=lambda: False)}
    consumer = Consumer(bus, database, "svc", handlers, SystemClock())
    await consumer.start()
    begun = asyncio.get_running_loop().time()
    for name in "abc":
        await bus.publish([told(name, finished=True)])
        await seen.total("abc".index(name) + 1)
    assert len(seen.found) == 3
    assert asyncio.get_running_loop().time() - begun < 5
    await consumer.stop()


async def test_a_paced_consumer_gathers_while_it_pauses(
    bus: EmbeddedBus, database: Database
) -> None:
    seen = Batches()
    consumer = Consumer(bus, database, "svc", {JobFinished: seen}, SystemClock(), pace_seconds=0.2)
    await consumer.start()
    await bus.publish([told("a", finished=True)])
    assert await seen.total(1) == [["a"]], "the first is not delayed"
    await bus.publish([told("b", finished=True)])
    await bus.publish([told("c", finished=True)])
    assert await seen.total(3) == [["a"], ["b", "c"]]
    await consumer.stop()


async def test_a_handler_may_be_choosy_and_patient(bus: EmbeddedBus, database: Database) -> None:
    seen = Batches()
    for handler in (
        lazily(only(lambda fact: fact.attempt == 1, seen)),
        only(lambda fact: fact.attempt == 1, lazily(seen)),
    ):
        dispatch = Dispatch("svc", {JobFinished: handler})
        assert dispatch.patient
        assert dispatch.route(told("a", finished=True)) is None
