"""The dialer against real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from services.webhooks.config import WebhooksConfig
from services.webhooks.errors import AddressBlocked
from services.webhooks.service.sender import HttpSender

Receiver = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOCAL = WebhooksConfig(allow_localhost=True, total_timeout_seconds=0.5)


class Lying(AbstractResolver):
    """A name server that sends every name to one address."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        kind = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        return [
            ResolveResult(
                hostname=host,
                host=self.address,
                port=port,
                family=kind,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


class Server:
    """A receiver on loopback that keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.reply: Receiver = self._ok
        self.port = 0

    async def _ok(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="thanks")

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.got.append((request.path, dict(request.headers), await request.read()))
        return await self.reply(request)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/hook"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    runner = web.ServerRunner(web.Server(found.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


async def send(config: WebhooksConfig, url: str, resolver: AbstractResolver | None = None) -> Any:
    sender = HttpSender(config, resolver)
    await sender.start()
    try:
        return await sender.send(url, b'{"a":1}', {"X-Test": "1"})
    finally:
        await sender.stop()


async def test_a_local_receiver_is_told_where_that_is_allowed(server: Server) -> None:
    answer = await send(LOCAL, server.url)
    assert answer.taken
    ((path, headers, body),) = server.got
    assert (path, headers["X-Test"], body) == ("/hook", "1", b'{"a":1}')


async def test_and_is_not_where_it_is_not(server: Server) -> None:
    with pytest.raises(AddressBlocked):
        await send(WebhooksConfig(), server.url)
    assert not server.got


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0", "[::]", "10.0.0.1",
     "169.254.169.254", "[fe80::1]", "[64:ff9b::7f00:1]"],
)  # fmt: skip
async def test_literal_addresses_do_not_pass_by(host: str) -> None:
    """A resolver is not asked about these, so only the socket can refuse them."""
    with pytest.raises(AddressBlocked) as refused:
        await send(WebhooksConfig(), f"https://{host}/x")
    assert "blocked_by_policy" in refused.value.why


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "::ffff:127.0.0.1"])
async def test_names_that_lead_inside_are_blocked(address: str) -> None:
    for config in (WebhooksConfig(), LOCAL):
        with pytest.raises(AddressBlocked):
            await send(config, "https://innocent.example/x", Lying(address))


async def test_localhost_that_leads_elsewhere_is_blocked() -> None:
    with pytest.raises(AddressBlocked):
        await send(LOCAL, "http://localhost:9/x", Lying("10.0.0.1"))


async def test_redirects_are_not_followed(server: Server) -> None:
    async def away(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"http://localhost:{server.port}/in"})

    server.reply = away
    answer = await send(LOCAL, server.url)
    assert (answer.status, answer.taken, answer.retriable) == (302, False, False)
    assert len(server.got) == 1


async def test_proxies_of_the_environment_are_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert (await send(LOCAL, server.url)).taken


async def test_an_answer_without_end_is_cut(server: Server) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        try:
            while True:
                await reply.write(b"x" * 65536)
        except (ConnectionError, asyncio.CancelledError):
            return reply

    server.reply = endless
    assert (await send(LOCAL, server.url)).taken


async def test_a_slow_answer_runs_out_of_time(server: Server) -> None:
    gone = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await gone.wait()
        return web.Response()

    server.reply = slow
    answer = await send(LOCAL, server.url)
    gone.set()
    assert (answer.status, answer.retriable) == (0, True)
    assert "no answer within" in answer.error


async def test_nobody_there_is_an_answer_without_status() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        answer = await send(LOCAL, f"http://localhost:{port}/secret-in-path")
    assert answer.retriable
    assert "secret" not in answer.error


async def test_retry_after_is_heard(server: Server) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "7"})

    server.reply = busy
    answer = await send(LOCAL, server.url)
    assert (answer.status, answer.retry_after_seconds) == (503, 7.0)
