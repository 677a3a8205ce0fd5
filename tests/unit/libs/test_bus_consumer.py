"""Effect and inbox in one commit; a poison record stops its key and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1.job_event_pb2 import JobEvent, JobFinished, JobQueued, JobStopRequested
from junglegrid.nodes.v1.node_event_pb2 import LeaseOpened, NodeChanged
from sqlalchemy import func, select

from libs import failpoints
from libs.bus import Consumer, Record, outbox_event, topics
from libs.bus.embedded import EmbeddedBus
from libs.bus.events import record as record_of
from libs.clock import ManualClock
from libs.db import Database, StorageUnavailable, Tx
from libs.telemetry import metrics, trace
from tests.unit.libs.bus_parts import SEEN, TABLES, TOPIC, finished, open_database, queued

Rows = list[tuple[str, int]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    found = open_database(tmp_path, clock)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def bus(tmp_path: Path, clock: ManualClock) -> AsyncIterator[EmbeddedBus]:
    found = EmbeddedBus(tmp_path / "bus.db", clock)
    await found.start()
    yield found
    await found.stop()


class Seen:
    """A handler that writes what it sees, and fails on what it is told to."""

    def __init__(self) -> None:
        self.poison: dict[str, Exception] = {}
        self.calls = 0

    def __call__(self, tx: Tx, meta: EventMeta, fact: Any) -> None:
        self.calls += 1
        tx.execute(SEEN.insert(), {"job_id": meta.aggregate_id, "attempt": fact.attempt})
        if meta.aggregate_id in self.poison:
            raise self.poison[meta.aggregate_id]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def consumer(
    bus: EmbeddedBus, database: Database, seen: Seen, clock: ManualClock
) -> AsyncIterator[Consumer]:
    found = Consumer(bus, database, "svc", {JobQueued: seen}, clock)
    await found.start()
    yield found
    await found.stop()


async def rows(database: Database) -> Rows:
    statement = select(SEEN.c.job_id, SEEN.c.attempt).order_by(SEEN.c.place)
    return await database.read(lambda tx: [(j, a) for j, a in tx.execute(statement)])


async def until_rows(database: Database, count: int, clock: ManualClock | None = None) -> Rows:
    """Waits for the rows, moving the clock whenever someone sleeps on it for a moment."""
    async with asyncio.timeout(10):
        while len(found := await rows(database)) < count:
            if clock is not None:
                clock.advance(0.05)
            await asyncio.sleep(0)
    return found


async def until_parked(consumer: Consumer, clock: ManualClock, count: int) -> None:
    """Waits until so many records are parked."""
    async with asyncio.timeout(10):
        while sum(records for _, _, records in await consumer.parked()) < count:
            clock.advance(0.05)
            await asyncio.sleep(0)


async def until(condition: Callable[[], bool], clock: ManualClock | None = None) -> None:
    async with asyncio.timeout(10):
        while not condition():
            if clock is not None:
                clock.advance(0.05)
            await asyncio.sleep(0)


def job(name: str, seq: int = 1) -> Record:
    return record_of(queued(name, seq))


async def test_facts_become_effects_in_order(
    bus: EmbeddedBus, database: Database, consumer: Consumer
) -> None:
    await bus.publish([job(f"job_{n % 5}", n // 5 + 1) for n in range(50)])
    assert await until_rows(database, 50) == [(f"job_{n % 5}", n // 5 + 1) for n in range(50)]


async def test_a_batch_is_one_commit(
    bus: EmbeddedBus, database: Database, seen: Seen, clock: ManualClock
) -> None:
    await bus.publish([job(f"job_{n}") for n in range(200)])
    before = metrics.value("grid_db_commits_total", service="svc")
    consumer = Consumer(bus, database, "svc", {JobQueued: seen}, clock)
    await consumer.start()
    await until_rows(database, 200)
    await consumer.stop()
    await database.write(lambda tx: None)  # comes behind what counts the commit
    assert metrics.value("grid_db_commits_total", service="svc") - before == 1


async def test_duplicates_are_dropped_and_counted(
    bus: EmbeddedBus, database: Database, consumer: Consumer, seen: Seen
) -> None:
    before = metrics.value("grid_bus_duplicates_total", consumer="svc")
    once = [job(f"job_{n}") for n in range(10)]
    await bus.publish([*once, *once])
    await bus.publish(once)
    await bus.publish([job("job_end")])
    assert len(await until_rows(database, 11)) == 11
    assert seen.calls == 11
    await until(lambda: metrics.value("grid_bus_duplicates_total", consumer="svc") == before + 20)


async def test_a_crash_before_the_offset_redelivers_without_effect(
    bus: EmbeddedBus, database: Database, consumer: Consumer, seen: Seen, clock: ManualClock
) -> None:
    failpoints.arm("bus.consumer.after_effect_before_offset=error")
    before = metrics.value("grid_bus_duplicates_total", consumer="svc")
    await bus.publish([job("job_1"), job("job_2")])
    await until_rows(database, 2)
    await until(lambda: clock.sleepers == 3)
    failpoints.disarm()
    clock.advance(0.1)
    await bus.publish([job("job_3")])
    assert await until_rows(database, 3) == [("job_1", 1), ("job_2", 1), ("job_3", 1)]
    await until(lambda: metrics.value("grid_bus_duplicates_total", consumer="svc") - before == 2)


async def test_a_poison_record_parks_its_key_and_nobody_else(
    bus: EmbeddedBus, database: Database, consumer: Consumer, seen: Seen, clock: ManualClock
) -> None:
    letters = bus.subscribe("test", [TOPIC + topics.DEAD_LETTERS])
    seen.poison = {"job_bad": ValueError("no such thing")}
    bad = job("job_bad", 1)
    await bus.publish([job("job_a", 1), bad, job("job_b", 1), job("job_bad", 2), job("job_a", 2)])
    await bus.publish([job("job_c", 1)])
    found = await until_rows(database, 4, clock)
    assert sorted(found) == [("job_a", 1), ("job_a", 2), ("job_b", 1), ("job_c", 1)]
    await until_parked(consumer, clock, 2)
    assert await consumer.parked() == [(TOPIC, "job_bad", 2)]

    (letter,) = await letters.fetch()
    assert (letter.key, letter.payload) == ("job_bad", bad.payload)
    assert letter.headers["consumer"] == "svc"
    assert "no such thing" in letter.headers["error"]

    # The key stays parked for what comes later, in order, and healthy again it still waits.
    seen.poison = {}
    await bus.publish([job("job_bad", 3), job("job_d", 1)])
    await until_rows(database, 5, clock)
    assert await consumer.parked() == [(TOPIC, "job_bad", 3)]

    assert await consumer.replay(TOPIC, "job_bad") == 3
    await bus.publish([job("job_bad", 4)])
    found = await until_rows(database, 9)
    assert found[5:] == [("job_bad", 1), ("job_bad", 2), ("job_bad", 3), ("job_bad", 4)]
    assert await consumer.parked() == []


async def test_five_tries_then_parked(
    bus: EmbeddedBus, database: Database, consumer: Consumer, seen: Seen, clock: ManualClock
) -> None:
    seen.poison = {"job_bad": ValueError()}
    await bus.publish([job("job_bad")])
    await until(lambda: seen.calls >= 1 + 5, clock)
    await bus.publish([job("job_end")])
    await until_rows(database, 1, clock)
    assert seen.calls == 1 + 5 + 1


async def test_a_key_that_recovers_in_time_is_not_parked(
    bus: EmbeddedBus, database: Database, consumer: Consumer, seen: Seen, clock: ManualClock
) -> None:
    seen.poison = {"job_1": ValueError()}
    await bus.publish([job("job_1", 1), job("job_1", 2)])
    await until(lambda: seen.calls == 3, clock)
    seen.poison = {}
    assert await until_rows(database, 2, clock) == [("job_1", 1), ("job_1", 2)]
    assert await consumer.parked() == []


async def test_a_failed_replay_changes_nothing(
    bus: EmbeddedBus, database: Database, consumer: Consumer, seen: Seen, clock: ManualClock
) -> None:
    poison = job("job_bad", 1)
    seen.poison = {"job_bad": ValueError("still bad")}
    await bus.publish([poison, job("job_bad", 2), job("job_end")])
    await until_parked(consumer, clock, 2)
    with pytest.raises(ValueError, match="still bad"):
        await consumer.replay(TOPIC, "job_bad")
    assert await consumer.parked() == [(TOPIC, "job_bad", 2)]
    seen.poison = {}
    assert await consumer.replay(TOPIC, "job_bad", skip=[poison.event_id]) == 1
    assert await rows(database) == [("job_end", 1), ("job_bad", 2)]


async def test_parked_keys_survive_a_restart(
    tmp_path: Path, bus: EmbeddedBus, seen: Seen, clock: ManualClock
) -> None:
    for life in (1, 2):
        database = open_database(tmp_path, clock)
        await database.start()
        consumer = Consumer(bus, database, "svc", {JobQueued: seen}, clock)
        await consumer.start()
        seen.poison = {"job_bad": ValueError()} if life == 1 else {}
        await bus.publish([job("job_bad", life), job("job_good", life)])
        await until_parked(consumer, clock, life)
        assert await consumer.parked() == [(TOPIC, "job_bad", life)]
        assert len(await rows(database)) == life
        await consumer.stop()
        await database.stop()


async def test_bytes_that_are_no_message_are_parked(
    bus: EmbeddedBus, database: Database, consumer: Consumer, clock: ManualClock
) -> None:
    garbage = Record(TOPIC, "job_x", "evt_x", b"\xff\xff\xff")
    stranger = replace(job("job_y"), event_id="evt_other")
    await bus.publish([garbage, stranger, job("job_1")])
    await until_rows(database, 1, clock)
    await until_parked(consumer, clock, 2)


async def test_an_unknown_fact_is_skipped_and_counted(
    bus: EmbeddedBus, database: Database, consumer: Consumer
) -> None:
    before = metrics.value("grid_bus_unknown_facts_total", topic=TOPIC)
    message = JobEvent.FromString(queued("job_1").payload)
    message.ClearField("queued")
    from_the_future = message.SerializeToString() + b"\xfa\x06\x00"  # field 111, a message
    await bus.publish([Record(TOPIC, "job_1", message.meta.event_id, from_the_future)])
    await bus.publish([record_of(finished("job_1", 2)), job("job_1", 3)])
    assert await until_rows(database, 1) == [("job_1", 3)]
    assert await consumer.parked() == []
    assert metrics.value("grid_bus_unknown_facts_total", topic=TOPIC) - before == 1
    inbox = select(func.count()).select_from(TABLES.inbox)
    assert await database.read(lambda tx: tx.execute(inbox).scalar_one()) == 1


async def test_trouble_of_the_store_is_no_fault_of_a_record(
    bus: EmbeddedBus, database: Database, consumer: Consumer, seen: Seen, clock: ManualClock
) -> None:
    seen.poison = {"job_1": StorageUnavailable("the disk is full")}
    await bus.publish([job("job_1"), job("job_2")])
    await until(lambda: seen.calls > 20, clock)
    assert await consumer.parked() == []
    seen.poison = {}
    clock.advance(2)
    assert await until_rows(database, 2, clock) == [("job_1", 1), ("job_2", 1)]


async def test_a_handler_runs_in_the_trace_of_its_fact(
    bus: EmbeddedBus, database: Database, clock: ManualClock
) -> None:
    found: list[str | None] = []
    done = asyncio.Event()

    def handler(tx: Tx, meta: EventMeta, fact: Any) -> None:
        found.append(trace.current_traceparent())
        tx.after_commit(done.set)

    token = trace.attach(sent := trace.new_traceparent())
    fact = queued("job_1")
    trace.detach(token)
    assert fact.headers == {"traceparent": sent}
    consumer = Consumer(bus, database, "svc", {JobQueued: handler}, clock)
    await consumer.start()
    await bus.publish([record_of(fact)])
    await done.wait()
    await consumer.stop()
    assert found == [sent]


async def test_a_handler_may_ask_for_whole_events(
    bus: EmbeddedBus, database: Database, clock: ManualClock
) -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()
    consumer = Consumer(
        bus, database, "svc", {JobEvent: lambda tx, meta, event: got.put_nowait(event)}, clock
    )
    await consumer.start()
    await bus.publish([record_of(finished("job_1", 1))])
    assert (await got.get()).finished == JobFinished(attempt=1)
    await consumer.stop()


async def test_the_inbox_forgets_after_thirty_days(
    bus: EmbeddedBus, database: Database, consumer: Consumer, clock: ManualClock
) -> None:
    inbox = select(func.count()).select_from(TABLES.inbox)
    await bus.publish([job(f"job_{n}") for n in range(3)])
    await until_rows(database, 3)
    clock.advance(29 * 86_400)
    await bus.publish([job("job_new")])
    await until_rows(database, 4)
    clock.advance(2 * 86_400)
    async with asyncio.timeout(10):
        while await database.read(lambda tx: int(tx.execute(inbox).scalar_one())) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert len(await rows(database)) == 4


def test_topics_are_found_from_facts() -> None:
    assert topics.topic_of(JobStopRequested) == TOPIC
    assert topics.topic_of(LeaseOpened) == "junglegrid.nodes.v1.LeaseEvent"
    assert topics.topic_of(NodeChanged) == "junglegrid.nodes.v1.NodeEvent"
    with pytest.raises(topics.UnknownTopic):
        topics.topic_of(EventMeta)
    for topic in topics.TOPICS:
        assert topics.message_class(topic).DESCRIPTOR.full_name == topic
        assert topics.facts(topic)


def test_an_event_is_whole_or_refused() -> None:
    message = JobEvent.FromString(queued("job_1").payload)
    assert outbox_event(message).key == "job_1"
    for field, value in (("event_id", ""), ("aggregate_id", ""), ("aggregate_seq", 0)):
        broken = JobEvent.FromString(message.SerializeToString())
        setattr(broken.meta, field, value)
        with pytest.raises(ValueError, match="meta needs"):
            outbox_event(broken)
    message.ClearField("queued")
    with pytest.raises(ValueError, match="no fact"):
        outbox_event(message)
