"""Hints are coalesced and none is lost between two waits."""

from __future__ import annotations

import asyncio

import pytest

from libs.wake import Wake, connect

LONG = 10.0


async def waiting(wake: Wake, channel: str) -> asyncio.Future[bool]:
    """A wait that has begun."""
    task = asyncio.ensure_future(wake.wait(channel, LONG))
    await asyncio.sleep(0)
    return task


async def test_a_waiter_is_woken(wake: Wake) -> None:
    wait = await waiting(wake, "a")
    assert not wait.done()
    wake.notify("a")
    async with asyncio.timeout(LONG / 2):
        assert await wait is True


async def test_a_hint_between_two_waits_is_kept(wake: Wake) -> None:
    wake.notify("a")
    assert await wake.wait("a", LONG) is True
    assert await wake.wait("a", 0.01) is False


async def test_many_hints_are_one(wake: Wake) -> None:
    wait = await waiting(wake, "a")
    for _ in range(10):
        wake.notify("a")
    assert await wait is True
    # One may be left of those that came after the waiter was woken, never more.
    await wake.wait("a", 0)
    assert await wake.wait("a", 0) is False


async def test_a_hint_that_comes_while_the_woken_one_works_is_not_lost(wake: Wake) -> None:
    wait = await waiting(wake, "a")
    wake.notify("a")
    await asyncio.sleep(0)
    wake.notify("a")
    assert await wait is True
    assert await wake.wait("a", LONG) is True


async def test_channels_are_apart(wake: Wake) -> None:
    wake.notify("b")
    assert await wake.wait("a", 0.01) is False
    assert await wake.wait("b", LONG) is True


async def test_time_runs_out(wake: Wake) -> None:
    assert await wake.wait("a", 0.01) is False
    assert await wake.wait("a", 0) is False


async def test_a_cancelled_waiter_takes_no_hint_with_it(wake: Wake) -> None:
    first = await waiting(wake, "a")
    wake.notify("a")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await wake.wait("a", LONG) is True
    second = await waiting(wake, "a")
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await wake.wait("a", 0) is False


async def test_one_waiter_gets_a_hint(wake: Wake) -> None:
    waits = [await waiting(wake, "a") for _ in range(2)]
    wake.notify("a")
    done, pending = await asyncio.wait(waits, timeout=0.05)
    assert (len(done), len(pending)) == (1, 1)
    wake.notify("a")
    assert await pending.pop() is True


async def test_stopping_ends_waits(wake: Wake) -> None:
    wait = await waiting(wake, "a")
    await wake.stop()
    async with asyncio.timeout(LONG / 2):
        assert await wait is False
    assert await wake.wait("a", LONG) is False


def test_an_unknown_url_is_refused() -> None:
    with pytest.raises(ValueError, match="not memory://"):
        connect("redis://secret@x")
