"""Keys: the cache, its revocation, and what happens when identity cannot be asked."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from junglegrid.identity.v1 import identity_internal_service_pb2 as pb

from gateway.config import GatewayConfig
from gateway.errors import KeyMissing, KeyRefused, KeysUnconfirmed
from libs.clock import ManualClock
from libs.errors import Unavailable
from tests.unit.gateway.backend import World, running, until


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def world(clock: ManualClock) -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        async with running(Path(folder), GatewayConfig(port=0, resolve_seconds=30), clock) as found:
            yield found


async def revoke(world: World, *key_ids: str, position: int = 5) -> None:
    """Tells the stream and waits until the gateway has heard it."""
    await world.identity.news.put(pb.WatchRevocationsResponse(key_ids=key_ids, position=position))
    await until(lambda: world.keys.position >= position)


async def test_a_key_is_asked_for_once(world: World) -> None:
    key = world.identity.add("zoo:read", key_id="key_1")
    for _ in range(3):
        assert (await world.keys.principal(f"Bearer {key}")).subject == "key_1"
    assert (await world.keys.principal(f"bearer  {key} ")).subject == "key_1"
    assert world.identity.asked == 1


async def test_many_at_once_ask_once(world: World) -> None:
    key = world.identity.add()
    world.identity.hold = asyncio.Event()
    first = asyncio.create_task(world.keys.principal(f"Bearer {key}"))
    rest = [asyncio.create_task(world.keys.principal(f"Bearer {key}")) for _ in range(20)]
    await asyncio.sleep(0)
    first.cancel()  # its question goes on for the others
    world.identity.hold.set()
    found = await asyncio.gather(*rest)
    assert {principal.subject for principal in found} == {"key_0"}
    assert world.identity.asked == 1


@pytest.mark.parametrize("header", [None, "", "Basic abc", "jg_abc"])
async def test_no_key(world: World, header: str | None) -> None:
    with pytest.raises(KeyMissing):
        await world.keys.principal(header)


async def test_malformed_keys_are_refused_without_a_question(world: World) -> None:
    key = world.identity.add()
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    for text in ("jg_", "jg_abc", wrong, key + "x", "x" * 10_000, "jgn" + key[2:]):
        with pytest.raises(KeyRefused):
            await world.keys.principal(f"Bearer {text}")
    assert world.identity.asked == 0


async def test_an_unknown_key_is_remembered_for_a_moment(world: World, clock: ManualClock) -> None:
    key = world.identity.add()
    known = world.identity.keys.pop(key)
    for _ in range(3):
        with pytest.raises(KeyRefused):
            await world.keys.principal(f"Bearer {key}")
    assert world.identity.asked == 1
    world.identity.keys[key] = known
    clock.advance(6)
    assert (await world.keys.principal(f"Bearer {key}")).subject == known.key_id


async def test_a_revoked_key_dies_at_once(world: World) -> None:
    key, other = world.identity.add(key_id="key_a"), world.identity.add(key_id="key_b")
    await world.keys.principal(f"Bearer {key}")
    await world.keys.principal(f"Bearer {other}")
    del world.identity.keys[key]
    await revoke(world, "key_a")
    with pytest.raises(KeyRefused):
        await world.keys.principal(f"Bearer {key}")
    assert (await world.keys.principal(f"Bearer {other}")).subject == "key_b"


async def test_a_late_answer_about_a_revoked_key_is_not_believed(world: World) -> None:
    key = world.identity.add(key_id="key_a")
    world.identity.hold = asyncio.Event()
    asking = asyncio.create_task(world.keys.principal(f"Bearer {key}"))
    await asyncio.sleep(0)
    await revoke(world, "key_a")
    world.identity.hold.set()
    with pytest.raises(KeyRefused):
        await asking


async def test_beats_keep_a_cached_key_alive(world: World, clock: ManualClock) -> None:
    key = world.identity.add()
    await world.keys.principal(f"Bearer {key}")
    for position in range(1, 10):
        clock.advance(20)
        await revoke(world, position=position)
    world.identity.down = Unavailable("down")
    await world.keys.principal(f"Bearer {key}")
    assert world.identity.asked == 1


async def test_without_beats_a_key_lives_thirty_seconds(world: World, clock: ManualClock) -> None:
    key = world.identity.add()
    await world.keys.principal(f"Bearer {key}")
    world.identity.down = Unavailable("down")
    clock.advance(29)
    await world.keys.principal(f"Bearer {key}")
    clock.advance(2)
    with pytest.raises(KeysUnconfirmed) as caught:
        await world.keys.principal(f"Bearer {key}")
    assert caught.value.retry_after_seconds
    world.identity.down = None
    assert (await world.keys.principal(f"Bearer {key}")).subject == "key_0"


async def test_an_expired_key_is_refused_from_the_cache(world: World, clock: ManualClock) -> None:
    ends = clock.now().timestamp() + 10
    key = world.identity.add(expire=ends)
    await world.keys.principal(f"Bearer {key}")
    clock.advance(11)
    with pytest.raises(KeyRefused):
        await world.keys.principal(f"Bearer {key}")


async def test_a_lost_stream_goes_on_where_it_was(world: World, clock: ManualClock) -> None:
    await revoke(world, "key_x", position=7)
    await world.server.stop()
    await world.server.start()
    await until(lambda: clock.sleepers > 0)  # it waits before it connects again
    clock.advance(1)
    await until(lambda: len(world.identity.watched_after) == 2)
    assert world.identity.watched_after[1] == 7


async def test_the_cache_holds_no_key(world: World) -> None:
    key = world.identity.add()
    await world.keys.principal(f"Bearer {key}")
    assert key not in repr(vars(world.keys))
    assert key.encode() not in repr(vars(world.keys)).encode()


@pytest.mark.parametrize("query", ["api_key={key}", "x={key}", "x=%6Ag_{tail}", "access_token=abc"])
async def test_keys_in_urls_are_refused(world: World, query: str) -> None:
    key = world.identity.add("zoo:read")
    path = "/v1/animals?" + query.format(key=key, tail=key[3:])
    status, body, _ = await world.ask("GET", path, key=key)
    assert (status, body["code"]) == (400, "INVALID_REQUEST")
    assert "revoke this key" in body["message"]
    assert key not in b"".join(world.log).decode()


async def test_refusals_over_http(world: World) -> None:
    status, body, headers = await world.ask("GET", "/v1/animals/a")
    assert (status, body["code"]) == (401, "UNAUTHORIZED")
    assert headers["WWW-Authenticate"].startswith("Bearer")
    status, body, _ = await world.ask("GET", "/v1/animals/a", key="jg_nope")
    assert (status, body["code"]) == (401, "UNAUTHORIZED")
    world.identity.down = Unavailable("down")
    status, body, headers = await world.ask("GET", "/v1/animals/a", key=world.identity.add())
    assert (status, body["code"], headers["Retry-After"]) == (503, "UNAVAILABLE", "2")
