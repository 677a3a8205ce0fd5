"""Time that only a test moves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from libs.clock import ManualClock, SystemClock


def test_the_system_clock_is_aware_and_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)


async def test_sleepers_wake_in_order_of_time_when_it_is_due() -> None:
    clock, woken = ManualClock(), list[str]()

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    tasks = [
        asyncio.create_task(sleeper(*each))
        for each in (("late", 5.0), ("soon", 1.0), ("same", 1.0))
    ]
    await asyncio.sleep(0)
    assert clock.sleepers == 3
    clock.advance(0.999)
    await asyncio.sleep(0)
    assert woken == []
    clock.advance(0.001)
    await asyncio.sleep(0)
    assert woken == ["soon", "same"]
    clock.advance(10)
    await asyncio.gather(*tasks)
    assert woken == ["soon", "same", "late"]


async def test_a_cancelled_sleeper_does_not_break_time() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert clock.sleepers == 0
    clock.advance(2)


async def test_a_sleep_of_nothing_returns_at_once() -> None:
    await ManualClock().sleep(0)
    await ManualClock().sleep(-1)


def test_both_times_advance_together_and_never_back() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    clock = ManualClock(start)
    clock.advance(90)
    assert (clock.now() - start, clock.monotonic()) == (timedelta(seconds=90), 90.0)
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="aware"):
        ManualClock(datetime(2030, 1, 1))  # noqa: DTZ001 - the point of the test
