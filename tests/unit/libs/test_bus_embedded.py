"""What only the embedded bus has: pausing, its memory bound, retention, and dying."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.bus import Record
from libs.bus.embedded import EmbeddedBus, group
from libs.bus.embedded.group import Member
from libs.clock import ManualClock

TOPIC = "grid.test.v1.ThingEvent"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def bus(tmp_path: Path, clock: ManualClock) -> AsyncIterator[EmbeddedBus]:
    found = EmbeddedBus(tmp_path / "bus.db", clock)
    await found.start()
    yield found
    await found.stop()


async def asleep(clock: ManualClock) -> None:
    """Returns when the bus's sweeper waits for the clock again."""
    while not clock.sleepers:  # noqa: ASYNC110 - nothing says so, and it takes a few turns
        await asyncio.sleep(0)


def record(number: int) -> Record:
    return Record(TOPIC, f"k{number % 7}", f"evt_{number}", b"%d" % number)


async def test_a_paused_bus_takes_and_does_not_give(bus: EmbeddedBus) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    bus.pause()
    late = bus.subscribe("late", [TOPIC])
    await bus.publish([record(0)])
    fetches = [asyncio.ensure_future(s.fetch()) for s in (subscription, late)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(fetch.done() for fetch in fetches)
    bus.resume()
    for fetch in fetches:
        assert [r.event_id for r in await fetch] == ["evt_0"]


async def test_a_slow_group_is_bounded_and_loses_nothing(
    bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "OUTSTANDING_MAX", 50)
    slow, fast = bus.subscribe("slow", [TOPIC]), bus.subscribe("fast", [TOPIC])
    assert isinstance(slow, Member)
    assert isinstance(fast, Member)
    found: dict[str, list[int]] = {"slow": [], "fast": []}

    async def read(name: str, pauses: int) -> None:
        subscription = slow if name == "slow" else fast
        while len(found[name]) < 2000:
            records = await subscription.fetch(17)
            assert len(subscription.queue) <= 50
            for _ in range(pauses):
                await asyncio.sleep(0)
            found[name] += [int(r.payload) for r in records]
            await subscription.commit(records)

    async def write() -> None:
        for start in range(0, 2000, 10):
            await bus.publish([record(n) for n in range(start, start + 10)])

    async with asyncio.timeout(30):
        await asyncio.gather(write(), read("slow", 20), read("fast", 0))
    assert found == {"slow": list(range(2000)), "fast": list(range(2000))}


async def test_old_records_go_and_offsets_are_not_used_again(
    bus: EmbeddedBus, clock: ManualClock, tmp_path: Path
) -> None:
    await bus.publish([record(0)])
    clock.advance(6 * 86_400)
    await bus.publish([record(1)])
    await asleep(clock)
    clock.advance(1.5 * 86_400)
    await asleep(clock)
    records = await bus.subscribe("new", [TOPIC]).fetch()
    assert [r.event_id for r in records] == ["evt_1"]
    last = records[0].offset

    clock.advance(8 * 86_400)
    await asleep(clock)
    await bus.stop()
    await bus.start()
    await bus.publish([record(2)])
    (found,) = await bus.subscribe("newer", [TOPIC]).fetch()
    assert found.event_id == "evt_2"
    assert found.offset > last


async def test_a_failed_publish_leaves_nothing_and_the_next_one_works(
    bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    broken = Record(TOPIC, "k", "evt_bad", b"", {"x": object()})  # type: ignore[dict-item]
    with pytest.raises(Exception, match="not JSON serializable"):
        await bus.publish([record(0), broken])
    await bus.publish([record(1)])
    assert [r.event_id for r in await subscription.fetch()] == ["evt_1"]


async def test_members_of_a_group_agree_on_their_topics(bus: EmbeddedBus) -> None:
    bus.subscribe("g", [TOPIC])
    with pytest.raises(ValueError, match="group g reads"):
        bus.subscribe("g", [TOPIC, "other"])


async def test_its_log_is_folded_in_while_it_works(bus: EmbeddedBus, tmp_path: Path) -> None:
    big = [Record(TOPIC, "k", f"evt_{n}", b"x" * 60_000) for n in range(20)]
    for _ in range(30):
        await bus.publish(big)
    await bus.sync()
    await bus.publish([record(1)])
    assert (tmp_path / "bus.db-wal").stat().st_size < 20 << 20


PUBLISHER = """
import asyncio, sys
from pathlib import Path
from libs.bus import Record
from libs.bus.embedded import EmbeddedBus
from libs.clock import SystemClock

async def main():
    bus = EmbeddedBus(Path(sys.argv[1]), SystemClock())
    await bus.start()
    subscription = bus.subscribe("g", ["t"])
    async def consume():
        while True:
            records = await subscription.fetch(10)
            await subscription.commit(records)
    task = asyncio.create_task(consume())
    n = 0
    while True:
        await bus.publish([Record("t", "k", f"evt_{n}", b"")])
        print(n, flush=True)
        n += 1
asyncio.run(main())
"""


def killed_publisher(path: Path, enough: int) -> int:
    """Runs PUBLISHER, kills it after `enough` records, returns the last it saw published."""
    command = [sys.executable, "-c", PUBLISHER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = -1
        while acknowledged < enough:
            acknowledged = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        return acknowledged + len(child.stdout.read().splitlines())


async def test_a_killed_process_loses_no_published_record(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    acknowledged = await asyncio.to_thread(killed_publisher, path, 300)
    bus = EmbeddedBus(path, ManualClock())
    await bus.start()
    everything, rest = bus.subscribe("all", ["t"]), bus.subscribe("g", ["t"])
    seen: list[str] = []
    while len(seen) <= acknowledged:
        records = await everything.fetch()
        seen += [r.event_id for r in records]
        await everything.commit(records)
    assert seen[: acknowledged + 1] == [f"evt_{n}" for n in range(acknowledged + 1)]
    # The group goes on from what it had committed; the last few may come again.
    await bus.publish([Record("t", "k", "evt_end", b"")])
    assert (await rest.fetch(10_000))[0].event_id in [*seen, "evt_end"]
    await bus.stop()
