"""Holds that run out, orphans, and closes that never come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.billing import loops
from tests.unit.billing.world import World, claimed, closed, finished, queued

HOLD = 100_000  # 100 s at the test's price


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    await found.database.start()
    await found.credit(1_000_000)
    yield found
    await found.check()
    await found.database.stop()


async def amounts(world: World) -> tuple[int, int, int]:
    found = await world.balance()
    return found.available_micros, found.reserved_micros, found.spent_micros


async def test_the_sweep_takes_only_what_nobody_queued(world: World) -> None:
    await world.reserve(HOLD, job_id="job_orphan")
    await world.reserve(HOLD, job_id="job_live")
    await world.hear(queued(), "job_live")
    world.clock.advance(world.config.orphan_seconds - 1)
    assert await world.service.sweep() == 0
    world.clock.advance(2)
    assert await world.service.sweep() == 1
    assert await amounts(world) == (1_000_000 - HOLD, HOLD, 0)
    assert [fact.released_micros for fact in world.facts("hold_released")] == [HOLD]
    await world.hear(queued(), "job_orphan")
    assert len(world.facts("hold_exhausted")) == 1, "unpaid work must be stopped"


async def test_a_hold_of_a_job_that_lives_is_kept_however_late_it_is_heard_of(
    world: World,
) -> None:
    await world.reserve(HOLD)
    world.clock.advance(1_000)
    for world.jobs.live in ({"job_1"}, None):
        assert await world.service.sweep() == 0
    world.jobs.live = set()
    assert await world.service.sweep() == 1
    assert await amounts(world) == (1_000_000, 0, 0)


async def test_a_restart_gives_the_bus_its_time_before_a_hold_counts_as_left_over(
    world: World, tmp_path: Path
) -> None:
    await world.reserve(HOLD)
    world.clock.advance(86_400)  # down: the JobQueued of this job waits in jobs' outbox
    await world.database.stop()
    again = World(tmp_path, clock=world.clock)
    await again.database.start()
    assert await again.service.sweep() == 0, "the hold of an accepted job was given away"
    await again.hear(queued())
    assert not again.facts("hold_exhausted")
    world.clock.advance(again.config.orphan_seconds + 1)
    assert await again.service.sweep() == 0
    await again.database.stop()
    await world.database.start()


async def test_a_close_that_never_comes_frees_the_hold_in_the_end(world: World) -> None:
    await world.reserve(HOLD)
    await world.hear(queued())
    await world.hear(finished("failed"))
    assert await amounts(world) == (1_000_000 - HOLD, HOLD, 0)
    world.clock.advance(world.config.late_close_seconds + 1)
    assert await world.service.sweep() == 1
    await world.hear(closed(world.clock.now(), 10))
    assert await amounts(world) == (1_000_000, 0, 0)


async def test_the_meter_tells_exactly_once_when_the_hold_is_used_up(world: World) -> None:
    await world.reserve(HOLD)
    await world.hear(queued())
    await world.hear(claimed(world.clock.now()))
    lasts = 100 + world.config.exhaust_grace_seconds
    assert await world.service.exhaust() is not None
    world.clock.advance(lasts - 1)
    assert await world.service.exhaust() is not None
    assert not world.facts("hold_exhausted")
    world.clock.advance(1)
    assert await world.service.exhaust() is None
    assert [fact.attempt for fact in world.facts("hold_exhausted")] == [1]


async def test_an_extension_moves_the_meter(world: World) -> None:
    await world.reserve(HOLD)
    await world.hear(queued())
    await world.hear(claimed(world.clock.now()))
    first = await world.service.exhaust()
    await world.reserve(HOLD, period=1)
    second = await world.service.exhaust()
    assert first is not None
    assert second is not None
    assert (second - first).total_seconds() == 100


async def test_the_loop_sleeps_until_the_next_end_and_wakes_for_a_sooner_one(
    world: World,
) -> None:
    waits: list[float] = []

    class Recording:
        def notify(self, channel: str) -> None:
            world.wake.notify(channel)

        async def wait(self, channel: str, timeout_seconds: float) -> bool:
            waits.append(timeout_seconds)
            return await world.wake.wait(channel, 60)

    [loop] = loops.parts(world.service, world.clock, Recording(), world.config)  # type: ignore[arg-type]
    await loop.start()
    try:
        await world.reserve(HOLD)
        await world.hear(queued())
        await world.hear(claimed(world.clock.now()))
        world.clock.advance(100 + world.config.exhaust_grace_seconds)
        world.wake.notify("billing.meters")
        async with asyncio.timeout(5):
            await world.heard_about("hold_exhausted")
    finally:
        await loop.stop()
    assert waits[0] == world.config.sweep_seconds
    assert max(waits) <= world.config.sweep_seconds
