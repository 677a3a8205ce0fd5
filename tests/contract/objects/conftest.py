"""The object stores that the suite runs on: a new adapter is one more entry of STORES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from libs.clock import ManualClock
from libs.objects import Objects, connect

KEY = b"k" * 32
Opener = Callable[[Path, ManualClock], AbstractAsyncContextManager[Objects]]


@asynccontextmanager
async def file_store(folder: Path, clock: ManualClock) -> AsyncIterator[Objects]:
    """The file store, its URLs served as the gateway would."""
    app = web.Application()
    server = TestServer(app)
    # The port is needed for the URLs before the handlers exist: they are looked up when called.
    routes: dict[str, Callable[[web.Request], object]] = {}

    async def serve(request: web.Request) -> web.StreamResponse:
        answer = await routes[request.method](request)  # type: ignore[misc]
        assert isinstance(answer, web.StreamResponse)
        return answer

    app.router.add_route("*", "/objects/{key:.+}", serve)
    await server.start_server()
    url = f"file:///{folder}/objects?base_url=http://{server.host}:{server.port}"
    objects = connect(url, key=KEY, clock=clock)
    routes.update({method: handler for method, _, handler in objects.http_handlers()})
    await objects.start()
    yield objects
    await objects.stop()
    await server.close()


STORES: dict[str, Opener] = {"file": file_store}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=STORES)
async def objects(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[Objects]:
    async with STORES[request.param](tmp_path, clock) as found:
        yield found


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as session:
        yield session
