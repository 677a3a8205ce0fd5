"""A node's credential is refused by every RPC of the internal listener, and the node listener
refuses every RPC that is not for nodes. The lists come from the running grid itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from libs.rpc import Principal
from libs.rpc.authenticate import SESSION_PREFIX
from libs.rpc.token import to_text
from tests.support.grid import GridHere, grid_here

NODE = Principal("node", "node_01ARZ3NDEKTSV4RRFFQ69G5FAV", session="ses_1:1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid() -> AsyncIterator[GridHere]:
    async with grid_here() as found:
        yield found


def methods(services: list[str]) -> Iterator[MethodDescriptor]:
    for name in services:
        yield from descriptor_pool.Default().FindServiceByName(name).methods


async def listed(address: str) -> list[str]:
    """The services of ours that the listener at `address` serves, as reflection tells."""
    channel: Any
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([request]))
        async for reply in call:
            names = [each.name for each in reply.list_services_response.service]
            return [name for name in names if name.startswith("junglegrid.")]
    return []


async def code_of(channel: grpc.aio.Channel, method: MethodDescriptor, metadata: Any) -> str:
    """The status of a call with an empty request, in the method's own arity."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    given = {"metadata": metadata, "timeout": 5}
    call: Any
    if method.client_streaming:
        make: Any = channel.stream_stream if method.server_streaming else channel.stream_unary
        call = make(path)(iter([b""]), **given)
    else:
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        call = make(path)(b"", **given)
    return str((await call.code()).name)


def credentials(grid: GridHere) -> dict[str, Any]:
    context = grid.context("nodes")
    token = context.node_signer.sign(NODE)
    return {
        "node credential": (("authorization", "Bearer jgn_0123456789abcdef"),),
        "session": (("authorization", f"Bearer {SESSION_PREFIX}{to_text(token)}"),),
        "session as principal": (("jg-principal-bin", token),),
        "node principal": (("jg-principal-bin", context.signer.sign(NODE)),),
    }


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "shown", ["node credential", "session", "session as principal", "node principal"]
)
async def test_every_internal_rpc_refuses_a_node(grid: GridHere, shown: str) -> None:
    address = grid.settings.listeners.internal
    names = await listed(address)
    assert len(names) >= 8
    async with grpc.aio.insecure_channel(address) as channel:
        codes = {
            method.full_name: await code_of(channel, method, credentials(grid)[shown])
            for method in methods(names)
        }
    assert len(codes) > 30
    assert {name: code for name, code in codes.items() if code != "PERMISSION_DENIED"} == {}


@pytest.mark.asyncio(loop_scope="module")
async def test_every_internal_rpc_refuses_a_stranger(grid: GridHere) -> None:
    address = grid.settings.listeners.internal
    async with grpc.aio.insecure_channel(address) as channel:
        codes = {
            method.full_name: await code_of(channel, method, ())
            for method in methods(await listed(address))
        }
    assert {name: code for name, code in codes.items() if code != "UNAUTHENTICATED"} == {}


@pytest.mark.asyncio(loop_scope="module")
async def test_the_node_listener_refuses_what_is_not_for_nodes(grid: GridHere) -> None:
    shown = credentials(grid)["session"]
    inside = await listed(grid.settings.listeners.internal)
    assert inside
    async with grpc.aio.insecure_channel(grid.node_address) as channel:
        codes = {
            method.full_name: await code_of(channel, method, shown) for method in methods(inside)
        }
    allowed = {name for name, code in codes.items() if code != "PERMISSION_DENIED"}
    assert not [name for name in allowed if "InternalService" in name]
    assert not [name for name in allowed if ".JobService." in name]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_node_listener_has_no_reflection(grid: GridHere) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await listed(grid.node_address)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
