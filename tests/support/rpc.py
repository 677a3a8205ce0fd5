"""Both kinds of listener over unix sockets, with a servicer that answers what it knows."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from libs.errors import NotFound
from libs.rpc import (
    InternalAuthenticator,
    NodeAuthenticator,
    Principal,
    Server,
    Signer,
    Verifier,
    as_service,
    connect,
    context,
    default_interceptors,
)
from tests.support.echo import EchoStub, Text, add_echo

KEY = b"k" * 32
USER = Principal("user", "key_1", "ws_1", frozenset({"echo:say"}))


class MissingThing(NotFound):
    reason = "THING_NOT_FOUND"


class Echo:
    """Answers with what it knows about the call."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.left = asyncio.Event()
        self.behaviors: dict[str, Callable[[], Any]] = {}

    async def Say(self, request: Any, _: Any) -> Any:
        if request.value in self.behaviors:
            return await self.behaviors[request.value]()
        return Text(value=context.tenant().workspace_id)

    async def Report(self, request: Any, _: Any) -> Any:
        return Text(value=f"{len(request.value)}")

    async def Hello(self, request: Any, _: Any) -> Any:
        return request

    async def Count(self, request: Any, _: Any) -> AsyncIterator[Any]:
        try:
            for number in range(int(request.value)):
                yield Text(value=str(number))
            if request.many:
                raise MissingThing("gone")
            self.entered.set()
            if request.value == "1":
                await asyncio.Event().wait()
        finally:
            self.left.set()

    async def Collect(self, requests: AsyncIterator[Any], _: Any) -> Any:
        return Text(value=",".join([each.value async for each in requests]))

    async def Chat(self, requests: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
        async for each in requests:
            yield each

    async def Whisper(self, _: Any, __: Any) -> Any:
        caller = context.principal()
        return Text(value=f"{caller.kind}:{caller.subject}:{caller.actor}")


class Grid:
    """A server with both kinds of listener, and channels to it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder, self.stack, self.echo = folder, stack, Echo()
        self.address = f"unix:{folder}/grid.sock"
        self.node_address = f"unix:{folder}/node.sock"

    async def start(self, unary_deadline_seconds: float = 30.0) -> None:
        inside = InternalAuthenticator(Verifier(KEY))
        outside = NodeAuthenticator(Verifier(KEY, audience="node-data"))
        servicer = [(add_echo, self.echo)]
        limit = {"unary_deadline_seconds": unary_deadline_seconds}
        self.server = Server(
            self.address, servicer, default_interceptors(inside, **limit), tools=True
        )
        self.node_server = Server(
            self.node_address,
            [(add_echo, NodeEcho())],
            default_interceptors(outside),
            refuse_unknown="this listener serves nodes only",
        )
        for server in (self.server, self.node_server):
            await server.start()
            self.stack.push_async_callback(server.stop)

    async def stub(self, source: Any = None, address: str | None = None) -> Any:
        channel = connect(address or self.address, principal_source=source)
        return EchoStub(await self.stack.enter_async_context(channel))


class NodeEcho:
    async def Report(self, _: Any, __: Any) -> Any:
        return Text(value=f"{context.principal().subject}|{context.bearer()}")


@asynccontextmanager
async def running(unary_deadline_seconds: float = 30.0) -> AsyncIterator[Grid]:
    """The listeners, in a folder of their own."""
    folder = Path(tempfile.mkdtemp(prefix="jg"))
    async with AsyncExitStack() as stack:
        found = Grid(folder, stack)
        await found.start(unary_deadline_seconds)
        yield found
    shutil.rmtree(folder)


service = as_service("gateway", Signer(KEY))
