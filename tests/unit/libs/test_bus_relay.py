"""The relay loses nothing and keeps each key's order, whatever the bus does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from libs import failpoints
from libs.bus import Relay, relay
from libs.clock import ManualClock
from libs.db import Database, Tx
from tests.unit.libs.bus_parts import TABLES, FaultyBus, open_database, queued

UNPUBLISHED = (
    select(func.count()).select_from(TABLES.outbox).where(TABLES.outbox.c.published_time.is_(None))
)
ALL = select(func.count()).select_from(TABLES.outbox)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bus() -> FaultyBus:
    return FaultyBus()


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    found = open_database(tmp_path, clock)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def running(database: Database, bus: FaultyBus, clock: ManualClock) -> AsyncIterator[Relay]:
    found = Relay(database, bus, clock)
    await found.start()
    yield found
    await found.stop()


async def emit(database: Database, job: str, *seqs: int) -> None:
    for seq in seqs:
        await database.write(lambda tx, seq=seq: tx.emit(queued(job, seq)))  # type: ignore[misc]


async def unpublished(database: Database) -> int:
    return await database.read(lambda tx: int(tx.execute(UNPUBLISHED).scalar_one()))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the relay has no event for a test to wait on
            await asyncio.sleep(0)


async def test_facts_reach_the_bus_in_order_and_are_marked_after_a_sync(
    database: Database, bus: FaultyBus, running: Relay
) -> None:
    await asyncio.gather(*(emit(database, f"job_{n}", 1, 2, 3) for n in range(50)))
    await until(lambda: len(bus.taken) == 150)
    for n in range(50):
        assert [seq for job, seq in bus.order() if job == f"job_{n}"] == [1, 2, 3]
    assert (bus.syncs, await unpublished(database)) == (0, 150)
    await running.flush()
    assert (bus.syncs, await unpublished(database)) == (1, 0)


async def test_marks_come_by_themselves(
    database: Database, bus: FaultyBus, clock: ManualClock, running: Relay
) -> None:
    await emit(database, "job_1", 1)
    await until(lambda: len(bus.taken) == 1 and clock.sleepers == 3)
    clock.advance(0.25)
    await until(lambda: bus.syncs == 1)
    await database.write(lambda tx: None)
    assert await unpublished(database) == 0


async def test_rows_of_an_earlier_life_go_first(
    database: Database, bus: FaultyBus, clock: ManualClock
) -> None:
    await emit(database, "job_1", 1, 2)
    relay = Relay(database, bus, clock)
    await emit(database, "job_1", 3)
    await relay.start()
    await emit(database, "job_1", 4)
    await until(lambda: len(bus.taken) >= 4)
    await relay.stop()
    assert bus.order() == [("job_1", seq) for seq in (1, 2, 3, 4)]


async def test_a_long_backlog_is_told_whole_while_new_facts_come(
    database: Database, bus: FaultyBus, clock: ManualClock
) -> None:
    def backlog(start: int) -> Callable[[Tx], None]:
        def work(tx: Tx) -> None:
            for n in range(start, start + 100):
                tx.emit(queued(f"job_{n}", 1))

        return work

    for start in range(0, 2000, 100):
        await database.write(backlog(start))
    relay = Relay(database, bus, clock)
    await relay.start()
    for n in range(0, 2000, 37):
        await emit(database, f"job_{n}", 2)
    expected = 2000 + len(range(0, 2000, 37))
    await until(lambda: len(set(bus.order())) == expected)
    await relay.stop()
    order = bus.order()
    for n in range(0, 2000, 37):
        assert [seq for job, seq in order if job == f"job_{n}"][:2] == [1, 2]


async def test_too_much_for_memory_goes_by_the_table(
    database: Database, bus: FaultyBus, running: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_MEMORY_MAX", 10)
    await asyncio.gather(*(emit(database, f"job_{n}", 1, 2, 3) for n in range(40)))
    await until(lambda: len(set(bus.order())) == 120)
    for n in range(40):
        seqs = [seq for job, seq in bus.order() if job == f"job_{n}"]
        assert [seq for place, seq in enumerate(seqs) if seq not in seqs[:place]] == [1, 2, 3]


async def test_a_bus_that_is_away_costs_time_only(
    database: Database, bus: FaultyBus, clock: ManualClock, running: Relay
) -> None:
    bus.down = True
    await emit(database, "job_1", 1, 2)
    for _ in range(4):
        await until(lambda: clock.sleepers == 3)
        clock.advance(5)
    assert bus.taken == []
    bus.down = False
    await until(lambda: clock.sleepers >= 2)
    clock.advance(5)
    await until(lambda: bus.order() == [("job_1", 1), ("job_1", 2)])


async def test_a_refused_key_waits_alone_and_in_order(
    database: Database, bus: FaultyBus, clock: ManualClock, running: Relay
) -> None:
    bus.refused_keys = {"job_bad"}
    await emit(database, "job_bad", 1)
    await emit(database, "job_good", 1)
    await emit(database, "job_bad", 2, 3)
    await emit(database, "job_good", 2)
    await until(lambda: len(bus.taken) == 2)
    assert bus.order() == [("job_good", 1), ("job_good", 2)]
    bus.refused_keys = set()
    await until(lambda: clock.sleepers >= 3)
    clock.advance(1)
    await until(lambda: len(bus.taken) == 5)
    assert bus.order()[2:] == [("job_bad", seq) for seq in (1, 2, 3)]
    await running.flush()
    assert await unpublished(database) == 0


async def test_a_crash_between_bus_and_mark_tells_twice_and_loses_nothing(
    database: Database, bus: FaultyBus, clock: ManualClock, running: Relay
) -> None:
    failpoints.arm("bus.relay.after_publish_before_mark=error")
    await emit(database, "job_1", 1)
    await until(lambda: len(bus.taken) == 1 and clock.sleepers == 3)
    failpoints.disarm()
    await emit(database, "job_1", 2)
    clock.advance(0.1)
    await until(lambda: len(bus.taken) >= 3)
    assert bus.order()[:3] == [("job_1", 1), ("job_1", 1), ("job_1", 2)]


async def test_the_sweep_finds_what_no_hint_announced(
    tmp_path: Path, database: Database, bus: FaultyBus, clock: ManualClock, running: Relay
) -> None:
    other_process = open_database(tmp_path, clock)
    await other_process.start()
    await emit(other_process, "job_1", 1)
    await other_process.stop()
    await until(lambda: clock.sleepers == 2)
    assert bus.taken == []
    clock.advance(30)
    await until(lambda: bus.order() == [("job_1", 1)])


async def test_a_new_bus_is_told_everything_again(
    database: Database, bus: FaultyBus, clock: ManualClock
) -> None:
    told: list[list[tuple[str, int]]] = []
    for name in ("bus-1", "bus-1", "bus-2"):
        bus.name, bus.taken = name, []
        relay = Relay(database, bus, clock)
        await relay.start()
        if not told:
            await emit(database, "job_1", 1, 2)
        await until(lambda: clock.sleepers >= 2)
        await until(lambda: len(bus.taken) == (0 if len(told) == 1 else 2))
        await relay.stop()
        told.append(bus.order())
    assert told == [[("job_1", 1), ("job_1", 2)], [], [("job_1", 1), ("job_1", 2)]]


async def test_republish_tells_what_was_committed_since(
    database: Database, bus: FaultyBus, clock: ManualClock, running: Relay
) -> None:
    await emit(database, "job_1", 1)
    clock.advance(60)
    since = clock.now()
    await emit(database, "job_1", 2, 3)
    await until(lambda: len(bus.taken) == 3)
    await running.flush()
    assert await running.republish(since) == 2
    await until(lambda: len(bus.taken) == 5)
    assert bus.order()[3:] == [("job_1", 2), ("job_1", 3)]


async def test_told_facts_are_kept_seven_days(
    database: Database, bus: FaultyBus, clock: ManualClock, running: Relay
) -> None:
    await emit(database, "job_1", 1)
    await until(lambda: len(bus.taken) == 1)
    await running.flush()
    clock.advance(timedelta(days=6, hours=23).total_seconds())
    await until(lambda: clock.sleepers >= 2)
    bus.down = True
    with suppress(ConnectionError):
        await emit(database, "job_1", 2)
    for _ in range(3):
        await until(lambda: clock.sleepers >= 2)
        clock.advance(3600)
        await database.write(lambda tx: None, long=True)
    assert await database.read(lambda tx: tx.execute(ALL).scalar_one()) == 1
    assert await unpublished(database) == 1
