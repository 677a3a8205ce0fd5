"""The listener and what surrounds a request: limits, health, metrics, CORS, the access log."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import validate

from gateway.app import AddressTaken, Edge
from gateway.config import GatewayConfig
from libs.errors import Conflict
from libs.telemetry import metrics
from tests.unit.gateway import zoo
from tests.unit.gateway.backend import World, running

CONFIG = GatewayConfig(port=0)
QUICK = replace(CONFIG, head_seconds=0.2, body_seconds=0.2, keep_alive_seconds=0.3)


@asynccontextmanager
async def configured(config: GatewayConfig) -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        async with running(Path(folder), config) as world:
            yield world


async def talk(world: World, *pieces: bytes) -> bytes:
    """Sends raw bytes and reads until the gateway closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    try:
        for index, piece in enumerate(pieces):
            if index:
                await reader.readline()  # the answer to the piece before has begun
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "pieces",
    [
        (b"",),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n",),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /he"),
    ],
    ids=["nothing", "half a head", "half a second head"],
)
async def test_connections_that_owe_a_head_are_cut(pieces: tuple[bytes, ...]) -> None:
    async with configured(QUICK) as world:
        before = metrics.total("grid_http_connections_refused_total", why="head")
        await talk(world, *pieces)
        assert metrics.total("grid_http_connections_refused_total", why="head") == before + 1


async def test_an_idle_connection_is_closed_after_its_keep_alive() -> None:
    async with configured(replace(QUICK, head_seconds=5)) as world:
        answer = await talk(world, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")


async def test_a_body_that_does_not_come_is_a_timeout() -> None:
    async with configured(QUICK) as world:
        key = world.identity.add("zoo:write")
        head = (
            f"POST /v1/animals HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        )
        answer = await talk(world, head.encode() + b'{"na')
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"REQUEST_TIMEOUT" in answer


async def test_a_slow_handler_is_left_alone() -> None:
    async def slow(_: Any) -> Any:
        await asyncio.sleep(0.6)
        return zoo.message("Animal")(animal_id="slow")

    async with configured(QUICK) as world:
        world.zoo.replies["GetAnimal"] = slow
        key = world.identity.add("zoo:read")
        status, body, _ = await world.ask("GET", "/v1/animals/slow", key=key)
        assert (status, body["animal_id"]) == (200, "slow")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: x\r\n" * 500 + b"\r\n",
        b"POST /v1/animals HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /x HTTP/1.1\nHost: x\n A: folded\n\n",
    ],
    ids=["tls", "long header", "many headers", "two lengths", "bare line feeds"],
)
async def test_what_is_no_http_is_refused_in_our_shape(raw: bytes) -> None:
    async with configured(QUICK) as world:
        answer = await talk(world, raw)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == b"400", answer
        assert json.loads(body)["error"]["code"] == "INVALID_REQUEST"
        assert b"Python" not in head


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"GET /v1/animals/%ff HTTP/1.1\r\n", "the path is not UTF-8"),
        (
            b"POST /v1/animals HTTP/1.1\r\nIdempotency-Key: \xe9\r\n",
            "Idempotency-Key: is not UTF-8",
        ),
    ],
    ids=["path", "header"],
)
async def test_bytes_that_are_no_text_are_the_senders_mistake(head: bytes, message: str) -> None:
    async with configured(QUICK) as world:
        key = world.identity.add("zoo:read", "zoo:write")
        rest = f"Host: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n"
        answer = await talk(world, head + rest.encode() + b"Content-Length: 2\r\n\r\n{}")
        assert answer.split()[1] == b"400", answer
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error["code"] == "INVALID_REQUEST"
        assert error["message"].startswith(message)
        assert world.zoo.requests == []


async def test_connections_are_capped() -> None:
    async with configured(replace(CONFIG, connections_per_address_max=2)) as world:
        held = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(2)]
        answer = await talk(world, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "UNAVAILABLE"
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(10):
            while (await world.ask("GET", "/healthz"))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await talk(world, one + one + last)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.rindex(b"HTTP/1.1 404") > answer.rindex(b"HTTP/1.1 200")


async def test_a_taken_port_is_one_clear_line(world: World) -> None:
    second = Edge(replace(CONFIG, port=world.port), world.gateway)
    with pytest.raises(AddressTaken, match=r"cannot listen on .* choose another port"):
        await second.start()
    await second.stop()


async def test_health_and_readiness(world: World) -> None:
    assert (await world.ask("GET", "/healthz"))[:2] == (
        200,
        {"ok": True, "service": "jungle-grid", "version": "0.1.0"},
    )
    status, body, _ = await world.ask("GET", "/readyz")
    assert (status, body) == (
        200,
        {"ready": True, "parts": [{"name": "zoo", "ready": True, "detail": ""}]},
    )
    await world.server.stop()
    status, body, _ = await world.ask("GET", "/readyz")
    assert (status, body["ready"], body["parts"][0]["ready"]) == (503, False, False)


async def test_a_part_that_is_not_running_is_named() -> None:
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        async with running(Path(folder), CONFIG, not_running=True) as world:
            status, body, _ = await world.ask("GET", "/readyz")
    assert (status, body["ready"]) == (503, False)
    assert {"name": "other", "ready": False, "detail": "not running"} in body["parts"]


async def test_metrics_are_for_the_operator(world: World) -> None:
    await world.ask("GET", "/healthz")
    status, text, headers = await world.ask("GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert b'grid_http_requests_total{method="GET",route="/healthz",status="200"}' in text
    async with configured(replace(CONFIG, metrics_token="t0ken")) as other:
        assert (await other.ask("GET", "/metrics"))[0] == 403
        assert (await other.ask("GET", "/metrics", key="wrong"))[0] == 403
        assert (await other.ask("GET", "/metrics", key="t0ken"))[0] == 200


async def test_the_description_is_valid_and_shown(world: World) -> None:
    status, body, headers = await world.ask("GET", "/openapi.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    validate(body)
    status, page, headers = await world.ask("GET", "/docs")
    assert status == 200
    assert "script" not in headers["Content-Security-Policy"].replace("default-src 'none'", "")
    assert b"<script" not in page
    assert b"/v1/animals/{animal_id}" in page
    assert b"http://" not in page
    assert b"https://" not in page
    status, _, headers = await world.ask("GET", "/", headers={"Accept": "text/html"})
    assert (status, headers["Location"]) == (302, "/docs")
    assert (await world.ask("GET", "/"))[1]["docs"] == "/docs"


async def test_cross_origin_requests_for_the_configured_origins_only() -> None:
    async with configured(replace(CONFIG, cors_origins=("https://app.example",))) as world:
        mine, other = {"Origin": "https://app.example"}, {"Origin": "https://evil.example"}
        status, _, headers = await world.ask("OPTIONS", "/v1/animals", headers=mine)
        assert (status, headers["Access-Control-Allow-Origin"]) == (204, "https://app.example")
        assert "POST" in headers["Access-Control-Allow-Methods"]
        assert "Authorization" in headers["Access-Control-Allow-Headers"]
        _, _, headers = await world.ask("GET", "/healthz", headers=mine)
        assert headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert "X-Request-Id" in headers["Access-Control-Expose-Headers"]
        for path in ("/healthz", "/v1/nothing"):
            _, _, headers = await world.ask("GET", path, headers=other)
            assert "Access-Control-Allow-Origin" not in headers
            assert headers["Vary"] == "Origin"


async def test_the_access_log_has_no_query_and_no_key(world: World) -> None:
    world.zoo.replies["ListAnimals"] = lambda _: zoo.message("ListAnimalsResponse")()
    key = world.identity.add("zoo:read", key_id="key_9")
    await world.ask("GET", "/v1/animals?cursor=s3cret", headers={"X-Request-Id": "r-1"})
    await world.ask("GET", f"/v1/{key}")
    await world.ask("GET", "/v1/animals/a", key=key, headers={"X-Request-Id": "r-2"})
    await world.access.stop()
    lines = [json.loads(line) for line in b"".join(world.log).splitlines()]
    assert [line["status"] for line in lines] == [200, 404, 500]
    assert lines[0]["path"] == "/v1/animals"
    assert lines[0]["request_id"] == "r-1"
    assert lines[2]["caller"] == "key_9"
    text = b"".join(world.log).decode()
    assert "s3cret" not in text
    assert key not in text


async def test_handlers_of_other_parts_are_mounted_as_they_are(world: World) -> None:
    async def put(request: web.Request) -> web.StreamResponse:
        data = await request.read()
        return web.json_response({"key": request.match_info["key"], "size": len(data)})

    async def fail(request: web.Request) -> web.StreamResponse:
        raise Conflict("not twice")

    async def leave(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/docs")

    world.gateway.mount([("PUT", "/objects/{key:.+}", put), ("GET", "/fail", fail)])
    world.gateway.mount([("GET", "/leave", leave)])
    status, body, headers = await world.ask(
        "PUT", "/objects/a/b%20c?sig=x", data=b"12345", expect100=True
    )
    assert (status, body) == (200, {"key": "a/b c", "size": 5})
    assert headers["X-Request-Id"]
    assert headers["Server"] == "jungle-grid"
    status, body, _ = await world.ask("GET", "/fail")
    assert (status, body["code"]) == (409, "CONFLICT")
    assert (await world.ask("GET", "/leave"))[0] == 302
    status, body, headers = await world.ask("DELETE", "/objects/a")
    assert (status, headers["Allow"]) == (405, "PUT")
    assert (await world.ask("GET", "/objects"))[0] == 404
