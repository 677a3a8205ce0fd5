"""Server streams as Server-Sent Events."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from gateway.config import GatewayConfig
from libs.errors import NotFound, Unavailable
from libs.telemetry import metrics
from tests.unit.gateway import zoo
from tests.unit.gateway.backend import World, running, until

CONFIG = GatewayConfig(port=0, stream_first_event_seconds=0.05)


def moved(position: int, place: str = "cage") -> Any:
    return zoo.message("WatchResponse")(position=position, moved={"place": place})


def watch(world: World, key: str, **headers: str) -> Any:
    return world.http.get(
        world.url("/v1/animals/a/watch"), headers={"Authorization": f"Bearer {key}", **headers}
    )


async def test_events_have_names_ids_and_data(world: World) -> None:
    async def events(request: Any) -> AsyncIterator[Any]:
        assert request.last_event_id == "41"
        yield moved(42)
        yield zoo.message("WatchResponse")(slept={"seconds": 0})
        yield zoo.message("WatchResponse")()  # a case that this gateway does not know

    world.zoo.replies["Watch"] = events
    async with watch(world, world.identity.add("zoo:read"), **{"Last-Event-ID": "41"}) as reply:
        text = await reply.text()
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Accel-Buffering"] == "no"
        assert reply.headers["X-Request-Id"]
    assert text == (
        "retry: 1000\n\n"
        'id: 42\nevent: moved\ndata: {"place":"cage"}\n\n'
        'event: slept\ndata: {"seconds":0.0}\n\n'
    )


async def test_line_breaks_stay_inside_the_data(world: World) -> None:
    async def events(_: Any) -> AsyncIterator[Any]:
        yield moved(1, "a\n\nevent: terminal\ndata: {}\r\n")

    world.zoo.replies["Watch"] = events
    async with watch(world, world.identity.add("zoo:read")) as reply:
        blocks = [block for block in (await reply.text()).split("\n\n") if block]
    assert len(blocks) == 2
    assert json.loads(blocks[1].split("data: ", 1)[1])["place"].startswith("a\n\nevent")


async def test_an_error_before_the_first_event_is_a_plain_answer(world: World) -> None:
    async def events(request: Any) -> AsyncIterator[Any]:
        if request.animal_id == "a":
            raise NotFound("there is no such animal")
        yield moved(1)

    world.zoo.replies["Watch"] = events
    async with watch(world, world.identity.add("zoo:read")) as reply:
        assert reply.status == 404
        assert reply.headers["Content-Type"] == "application/json"
        assert (await reply.json())["code"] == "NOT_FOUND"


async def test_an_error_after_the_first_event_is_the_last_event(world: World) -> None:
    async def events(_: Any) -> AsyncIterator[Any]:
        yield moved(1)
        await asyncio.sleep(0.1)
        raise Unavailable("the keeper has gone home")

    world.zoo.replies["Watch"] = events
    async with watch(world, world.identity.add("zoo:read")) as reply:
        text = await reply.text()
    last = text.rstrip().split("\n\n")[-1]
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.split("data: ")[1])["error"]["code"] == "UNAVAILABLE"


async def test_a_quiet_stream_is_kept_alive() -> None:
    gate = asyncio.Event()

    async def events(_: Any) -> AsyncIterator[Any]:
        await gate.wait()
        yield moved(1)

    config = replace(CONFIG, stream_heartbeat_seconds=0.05)
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        async with running(Path(folder), config) as world:
            world.zoo.replies["Watch"] = events
            async with watch(world, world.identity.add("zoo:read")) as reply:
                assert await reply.content.readline() == b"retry: 1000\n"
                await reply.content.readline()
                assert await reply.content.readline() == b": keep-alive\n"
                gate.set()
                assert b'data: {"place":"cage"}' in await reply.content.read()


async def test_a_reader_who_leaves_ends_the_call(world: World) -> None:
    async def events(_: Any) -> AsyncIterator[Any]:
        yield moved(1)
        await asyncio.Event().wait()

    world.zoo.replies["Watch"] = events
    async with watch(world, world.identity.add("zoo:read")) as reply:
        await reply.content.readline()
    async with asyncio.timeout(10):
        await world.zoo.cancelled.wait()


async def test_a_reader_who_does_not_read_is_cut_off() -> None:
    sent = 0

    async def events(_: Any) -> AsyncIterator[Any]:
        nonlocal sent
        while True:
            sent += 1
            yield moved(sent, "x" * 10_000)

    config = replace(CONFIG, stream_write_seconds=0.3)
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        async with running(Path(folder), config) as world:
            world.zoo.replies["Watch"] = events
            key = world.identity.add("zoo:read")
            with socket.create_connection(("127.0.0.1", world.port)) as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                head = f"GET /v1/animals/a/watch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}"
                deaf.sendall(f"{head}\r\n\r\n".encode())
                async with asyncio.timeout(10):
                    await world.zoo.cancelled.wait()
            # What the sockets and buffers between hold, not what the stream would like to send.
            assert sent * 10_000 < 30_000_000


async def test_streams_per_key_are_capped() -> None:
    async def events(_: Any) -> AsyncIterator[Any]:
        yield moved(1)
        await asyncio.Event().wait()

    config = replace(CONFIG, streams_per_key_max=2)
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        async with running(Path(folder), config) as world:
            world.zoo.replies["Watch"] = events
            key, other = world.identity.add("zoo:read"), world.identity.add("zoo:read")
            async with watch(world, key) as one, watch(world, key) as two:
                assert (one.status, two.status) == (200, 200)
                async with watch(world, key) as three:
                    assert three.status == 429
                    assert (await three.json())["code"] == "STREAM_LIMIT"
                    assert three.headers["Retry-After"]
                async with watch(world, other) as free:
                    assert free.status == 200
                await one.content.readline()
            async with asyncio.timeout(10):
                await world.zoo.cancelled.wait()


async def test_head_of_a_stream_opens_no_call(world: World) -> None:
    key = world.identity.add("zoo:read")
    headers = {"Authorization": f"Bearer {key}"}
    async with world.http.head(world.url("/v1/animals/a/watch"), headers=headers) as reply:
        assert reply.status == 200
    assert not world.zoo.requests


async def test_many_events_are_written_together(world: World) -> None:
    async def events(_: Any) -> AsyncIterator[Any]:
        for position in range(1, 2001):
            yield moved(position)

    world.zoo.replies["Watch"] = events
    async with watch(world, world.identity.add("zoo:read")) as reply:
        text = await reply.text()
    ids = [line for line in text.splitlines() if line.startswith("id: ")]
    assert ids == [f"id: {position}" for position in range(1, 2001)]


async def test_streams_are_counted_but_not_timed(world: World) -> None:
    async def events(_: Any) -> AsyncIterator[Any]:
        yield moved(1)

    world.zoo.replies["Watch"] = events
    route = {"route": "/v1/animals/{animal_id}/watch", "method": "GET"}
    before = metrics.value("grid_http_requests_total", **route, status="200")
    timed = metrics.value("grid_http_seconds_count", **route)
    async with watch(world, world.identity.add("zoo:read")) as reply:
        await reply.read()
    count = "grid_http_requests_total"
    await until(lambda: metrics.value(count, **route, status="200") == before + 1)
    assert metrics.value("grid_http_seconds_count", **route) == timed


async def test_stopping_ends_open_streams() -> None:
    async def events(_: Any) -> AsyncIterator[Any]:
        yield moved(1)
        await asyncio.Event().wait()

    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        async with aiohttp.ClientSession() as http:
            async with running(Path(folder), CONFIG) as world:
                world.zoo.replies["Watch"] = events
                key = world.identity.add("zoo:read")
                reply = await http.get(
                    world.url("/v1/animals/a/watch"), headers={"Authorization": f"Bearer {key}"}
                )
                await reply.content.readline()
                async with asyncio.timeout(10):
                    await world.edge.stop()
            reply.close()
