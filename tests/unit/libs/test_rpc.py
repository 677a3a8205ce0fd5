"""Who is let in, through real unix sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from libs.errors import (
    PermissionDenied,
    Unauthenticated,
)
from libs.rpc import Principal, Signer, as_bearer, as_service, context
from libs.rpc.token import to_text
from tests.support.echo import Text
from tests.support.rpc import KEY, USER, Grid, running, service


@pytest.fixture
async def grid() -> AsyncIterator[Grid]:
    async with running() as found:
        yield found


async def test_the_users_workspace_reaches_the_servicer(grid: Grid) -> None:
    stub = await grid.stub(service)
    with context.acting(USER):
        assert (await stub.Say(Text())).value == "ws_1"


async def test_a_user_is_passed_on_with_the_calling_service_as_actor(grid: Grid) -> None:
    stub = await grid.stub(service)
    with context.acting(USER):
        assert (await stub.Whisper(Text())).value == "user:key_1:gateway"
    assert (await stub.Whisper(Text())).value == "service:gateway:"


async def test_a_call_without_a_principal_is_unauthenticated(grid: Grid) -> None:
    stub = await grid.stub()
    with pytest.raises(Unauthenticated):
        await stub.Whisper(Text())


async def test_a_forged_principal_is_unauthenticated(grid: Grid) -> None:
    stub = await grid.stub(as_service("gateway", Signer(b"x" * 32)))
    with pytest.raises(Unauthenticated):
        await stub.Whisper(Text())


@pytest.mark.parametrize("bearer", ["jgn_credential", "jgs_session", "jg_userkey"])
async def test_any_bearer_text_is_denied_on_the_internal_listener(grid: Grid, bearer: str) -> None:
    stub = await grid.stub(as_bearer(lambda: bearer))
    for call in (stub.Say, stub.Whisper, stub.Hello):
        with pytest.raises(PermissionDenied):
            await call(Text())


async def test_a_token_for_nodes_is_denied_on_the_internal_listener(grid: Grid) -> None:
    stub = await grid.stub(as_service("gateway", Signer(KEY, audience="node-data")))
    with pytest.raises(PermissionDenied):
        await stub.Whisper(Text())


async def test_a_node_principal_is_denied_even_when_signed_for_inside(grid: Grid) -> None:
    signed = Signer(KEY).sign(Principal("node", "node_1"))
    stub = await grid.stub(lambda: [("jg-principal-bin", signed)])
    with pytest.raises(PermissionDenied):
        await stub.Whisper(Text())


async def test_a_user_without_an_actor_may_not_call_an_internal_service(grid: Grid) -> None:
    signed = Signer(KEY).sign(USER)
    stub = await grid.stub(lambda: [("jg-principal-bin", signed)])
    with pytest.raises(PermissionDenied):
        await stub.Whisper(Text())


async def test_a_missing_scope_is_denied_and_named(grid: Grid) -> None:
    stub = await grid.stub(service)
    with (
        context.acting(Principal("user", "key_2", "ws_1", frozenset({"other"}))),
        pytest.raises(PermissionDenied) as caught,
    ):
        await stub.Say(Text())
    assert caught.value.details == {"required_scopes": ["echo:say"]}


async def test_a_service_by_itself_may_call_only_public_methods_of_users(grid: Grid) -> None:
    stub = await grid.stub(service)
    assert (await stub.Hello(Text(value="x"))).value == "x"
    with pytest.raises(PermissionDenied):
        await stub.Say(Text())


async def test_the_node_listener_takes_sessions_and_leaves_credentials_to_the_servicer(
    grid: Grid,
) -> None:
    token = to_text(Signer(KEY, audience="node-data").sign(Principal("node", "node_7")))
    session = await grid.stub(as_bearer(lambda: f"jgs_{token}"), grid.node_address)
    assert (await session.Report(Text())).value.startswith("node_7|jgs_")
    credential = await grid.stub(as_bearer(lambda: "jgn_secret"), grid.node_address)
    with pytest.raises(Unauthenticated):  # nobody verified it, so there is no principal
        await credential.Report(Text())
    forged = await grid.stub(as_bearer(lambda: f"jgs_{token[:-3]}AAA"), grid.node_address)
    with pytest.raises(Unauthenticated):
        await forged.Report(Text())


async def test_the_node_listener_denies_every_method_it_does_not_serve(grid: Grid) -> None:
    token = to_text(Signer(KEY, audience="node-data").sign(Principal("node", "node_7")))
    stub = await grid.stub(as_bearer(lambda: f"jgs_{token}"), grid.node_address)
    for call in (stub.Say, stub.Whisper):
        with pytest.raises(PermissionDenied):
            await call(Text())
    channel = grpc.aio.insecure_channel(grid.node_address)
    reflect: Any = channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/X")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reflect(b"")
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await channel.close()
