"""Two tiny modules that follow the rules of real ones, for tests of the composition root."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from libs.process import Context, Module, Part, TaskPart
from libs.rpc import context
from tests.support.echo import EchoStub, Text, add_echo

MODULES = {
    "echo": ("tests.support.fake_modules:build_echo", ()),
    "asker": ("tests.support.fake_modules:build_asker", ("echo",)),
}
LOG: list[str] = []
ANSWERED = asyncio.Event()


class Store(Part):
    """Says when it is opened and closed."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def start(self) -> None:
        LOG.append(f"+{self.name}")

    async def stop(self) -> None:
        LOG.append(f"-{self.name}")


class Echo:
    async def Whisper(self, request: Any, _: Any) -> Any:
        caller = context.principal()
        return Text(value=f"{request.value} {caller.kind}:{caller.subject}")

    async def Count(self, _: Any, __: Any) -> AsyncIterator[Any]:
        yield Text(value="0")
        await asyncio.Event().wait()


class NodeEcho:
    async def Hello(self, request: Any, _: Any) -> Any:
        return request


def build_echo(ctx: Context) -> Module:
    return Module(
        name=ctx.service,
        parts=[Store("echo.db")],
        internal=[(add_echo, Echo())],
        node=[(add_echo, NodeEcho())],
    )


def build_asker(ctx: Context) -> Module:
    async def ask() -> None:
        stub: Any = EchoStub(ctx.peers("echo"))
        reply = await stub.Whisper(Text(value="hi"))
        LOG.append(reply.value)
        ANSWERED.set()

    return Module(name=ctx.service, parts=[TaskPart("ask", ask), Store("asker.db")])
