"""What a bus promises to groups and to keys."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence

import pytest

from libs.bus import Bus, Record, Subscription, SubscriptionClosed
from tests.contract.bus.conftest import Store

TOPIC, OTHER = "grid.test.v1.ThingEvent", "grid.test.v1.OtherEvent"


def record(number: int, key: str = "k", topic: str = TOPIC) -> Record:
    return Record(topic, key, f"evt_{number}", b"%d" % number, {"n": str(number)})


def numbers(records: Iterable[Record]) -> list[int]:
    return [int(record.payload) for record in records]


async def take(subscription: Subscription, count: int, commit: bool = True) -> list[Record]:
    """Exactly `count` records."""
    found: list[Record] = []
    while len(found) < count:
        records = await subscription.fetch(min(256, count - len(found)))
        assert records
        found += records
        if commit:
            await subscription.commit(records)
    return found


async def assert_quiet(subscription: Subscription) -> None:
    """Nothing more is on its way."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await subscription.fetch()


async def test_a_record_arrives_as_it_was_sent(bus: Bus) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    sent = Record(TOPIC, "schlüssel/\x01", "evt_1", bytes(range(256)), {"traceparent": "00-é"})
    await bus.publish([sent])
    (found,) = await subscription.fetch()
    assert found.offset >= 0
    assert (found.topic, found.key, found.event_id) == (sent.topic, sent.key, sent.event_id)
    assert (found.payload, dict(found.headers)) == (sent.payload, dict(sent.headers))


async def test_publishing_nothing_is_nothing(bus: Bus) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    await bus.publish([])
    await assert_quiet(subscription)


async def test_each_group_sees_all_in_order(bus: Bus) -> None:
    groups = [bus.subscribe(name, [TOPIC]) for name in ("a", "b", "c")]
    await asyncio.gather(
        *(bus.publish([record(n), record(n + 1)]) for n in range(0, 600, 2)),
    )
    for subscription in groups:
        assert numbers(await take(subscription, 600)) == list(range(600))
        await assert_quiet(subscription)


async def test_only_the_topics_asked_for(bus: Bus) -> None:
    one, both = bus.subscribe("one", [TOPIC]), bus.subscribe("both", [OTHER, TOPIC])
    await bus.publish([record(n, topic=OTHER if n % 2 else TOPIC) for n in range(10)])
    assert numbers(await take(one, 5)) == [0, 2, 4, 6, 8]
    assert numbers(await take(both, 10)) == list(range(10))


async def test_members_of_a_group_share_the_keys(bus: Bus) -> None:
    members = [bus.subscribe("g", [TOPIC]) for _ in range(3)]
    keys = [f"key_{n}" for n in range(40)]
    await bus.publish([record(n, keys[n % 40]) for n in range(400)])
    shares = await asyncio.gather(*(drain(member) for member in members))
    owner: dict[str, int] = {}
    for place, share in enumerate(shares):
        assert share
        for found in share:
            assert owner.setdefault(found.key, place) == place
        assert_key_order(share)
    assert sorted(n for share in shares for n in numbers(share)) == list(range(400))


async def drain(subscription: Subscription) -> list[Record]:
    found: list[Record] = []
    try:
        while True:
            async with asyncio.timeout(0.1):
                records = await subscription.fetch(7)
            found += records
            await subscription.commit(records)
    except TimeoutError:
        return found


def assert_key_order(records: Sequence[Record]) -> None:
    by_key: dict[str, list[int]] = defaultdict(list)
    for found in records:
        by_key[found.key].append(int(found.payload))
    assert all(seen == sorted(seen) for seen in by_key.values())


async def test_a_group_that_comes_late_begins_at_the_oldest(bus: Bus) -> None:
    await bus.publish([record(n) for n in range(3000)])
    late = bus.subscribe("late", [TOPIC])
    await bus.publish([record(n) for n in range(3000, 3100)])
    assert numbers(await take(late, 3100)) == list(range(3100))


async def test_a_fetch_waits_and_is_woken(bus: Bus) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    fetch = asyncio.ensure_future(subscription.fetch())
    await asyncio.sleep(0)
    assert not fetch.done()
    await bus.publish([record(1)])
    async with asyncio.timeout(5):
        assert numbers(await fetch) == [1]


async def test_a_fetch_takes_at_most_its_limit(bus: Bus) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    await bus.publish([record(n) for n in range(10)])
    assert len(await subscription.fetch(3)) <= 3


async def test_a_cancelled_fetch_loses_nothing(bus: Bus) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    found: list[Record] = []
    for n in range(20):
        fetch = asyncio.ensure_future(subscription.fetch(1))
        await asyncio.sleep(0)
        publish = asyncio.ensure_future(bus.publish([record(n)]))
        for _ in range(n % 4):
            await asyncio.sleep(0)
        fetch.cancel()
        result, _ = await asyncio.gather(fetch, publish, return_exceptions=True)
        found += result if isinstance(result, list) else []
    found += await take(subscription, 20 - len(found))
    assert numbers(found) == list(range(20))


async def test_what_was_committed_does_not_come_again(store: Store) -> None:
    bus = store.connect()
    await bus.start()
    subscription = bus.subscribe("g", [TOPIC, OTHER])
    await bus.publish([record(n, f"k{n}", OTHER if n % 3 else TOPIC) for n in range(100)])
    await take(subscription, 60)
    await subscription.fetch(10)  # not committed: 60 to 69
    await bus.stop()

    again = store.connect()
    await again.start()
    await again.publish([record(100)])
    found = await take(again.subscribe("g", [TOPIC, OTHER]), 41)
    assert numbers(found) == list(range(60, 101))
    await again.stop()


async def test_a_hole_in_what_was_committed_comes_again(store: Store) -> None:
    bus = store.connect()
    await bus.start()
    subscription = bus.subscribe("g", [TOPIC])
    await bus.publish([record(n, f"k{n}") for n in range(10)])
    records = await take(subscription, 10, commit=False)
    await subscription.commit([r for r in records if int(r.payload) != 4])
    await bus.stop()

    again = store.connect()
    await again.start()
    assert 4 in numbers(await again.subscribe("g", [TOPIC]).fetch())
    await again.stop()


async def test_a_new_topic_of_an_old_group_begins_at_its_oldest(store: Store) -> None:
    bus = store.connect()
    await bus.start()
    old = bus.subscribe("g", [TOPIC])
    await bus.publish([record(0), record(1, topic=OTHER), record(2)])
    await take(old, 2)
    await bus.stop()

    again = store.connect()
    await again.start()
    both = again.subscribe("g", [TOPIC, OTHER])
    await again.publish([record(3)])
    assert numbers(await take(both, 2)) == [1, 3]
    await again.stop()


async def test_a_member_that_leaves_hands_on_what_it_had(bus: Bus) -> None:
    leaver, stayer = (bus.subscribe("g", [TOPIC]) for _ in range(2))
    await bus.publish([record(n, f"key_{n % 16}") for n in range(200)])
    first = await leaver.fetch(20)
    await leaver.commit(first[:10])
    await leaver.close()
    found = await take(stayer, 200 - 10)
    assert sorted(numbers([*first[:10], *found])) == list(range(200))
    assert_key_order(found)


async def test_a_member_that_joins_gets_its_keys_from_where_they_were_committed(bus: Bus) -> None:
    first = bus.subscribe("g", [TOPIC])
    await bus.publish([record(n, f"key_{n % 16}") for n in range(100)])
    held = await first.fetch(50)
    second = bus.subscribe("g", [TOPIC])
    await first.commit(held)
    shares = [*held, *await drain(first)], await drain(second)
    assert set(numbers([*shares[0], *shares[1]])) == set(range(100))
    for share in shares:
        assert_key_order(share)


async def test_the_last_to_leave_leaves_the_rest_for_later(bus: Bus) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    await bus.publish([record(n) for n in range(10)])
    await take(subscription, 4)
    await subscription.close()
    await bus.publish([record(10)])
    assert numbers(await take(bus.subscribe("g", [TOPIC]), 7)) == list(range(4, 11))


async def test_a_closed_subscription_says_so(bus: Bus) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    fetch = asyncio.ensure_future(subscription.fetch())
    await asyncio.sleep(0)
    await subscription.close()
    with pytest.raises(SubscriptionClosed):
        await fetch
    with pytest.raises(SubscriptionClosed):
        await subscription.fetch()
    await subscription.close()


async def test_stopping_the_bus_ends_its_fetches(store: Store) -> None:
    bus = store.connect()
    await bus.start()
    fetch = asyncio.ensure_future(bus.subscribe("g", [TOPIC]).fetch())
    await asyncio.sleep(0)
    await bus.stop()
    with pytest.raises(SubscriptionClosed):
        await fetch
    await bus.stop()


async def test_its_name_lasts_as_long_as_its_records(store: Store) -> None:
    names = []
    for _ in range(2):
        bus = store.connect()
        await bus.start()
        names.append(bus.identity())
        await bus.sync()
        await bus.stop()
    assert names[0] == names[1] != ""
