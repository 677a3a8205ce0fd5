"""The call path through a real unix socket: who is let in, what is carried, what errors are."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from libs.errors import (
    DeadlineExceeded,
    GridError,
    Internal,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    StaleWrite,
    Unauthenticated,
    Unavailable,
)
from libs.rpc import (
    InternalAuthenticator,
    NodeAuthenticator,
    Principal,
    Server,
    Signer,
    Verifier,
    as_bearer,
    as_service,
    connect,
    context,
    default_interceptors,
)
from libs.rpc.token import to_text
from libs.telemetry import metrics, trace
from tests.support.echo import ECHO, EchoStub, Text, add_echo

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


@pytest.fixture
async def grid() -> AsyncIterator[Grid]:
    folder = Path(tempfile.mkdtemp(prefix="jg"))
    async with AsyncExitStack() as stack:
        found = Grid(folder, stack)
        await found.start()
        yield found
    shutil.rmtree(folder)


service = as_service("gateway", Signer(KEY))


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


async def test_a_grid_error_arrives_as_the_same_class_reason_and_details(grid: Grid) -> None:
    async def fail() -> None:
        raise MissingThing("no such thing", details={"id": "x", "n": [1]}, retry_after_seconds=2.5)

    grid.echo.behaviors["fail"] = fail
    stub = await grid.stub(service)
    with context.acting(USER), pytest.raises(NotFound) as caught:
        await stub.Say(Text(value="fail"))
    error = caught.value
    assert (error.reason, error.message) == ("THING_NOT_FOUND", "no such thing")
    assert error.details == {"id": "x", "n": [1]}
    assert error.retry_after_seconds == 2.5


async def test_an_unforeseen_error_shows_an_id_and_nothing_else(grid: Grid) -> None:
    async def fail() -> None:
        raise RuntimeError("password=hunter2")

    grid.echo.behaviors["fail"] = fail
    stub = await grid.stub(service)
    with context.acting(USER), pytest.raises(Internal) as caught:
        await stub.Say(Text(value="fail"))
    assert caught.value.details["error_id"] in caught.value.message
    assert "hunter2" not in f"{caught.value.message}{caught.value.details}"


async def test_a_stale_write_that_escapes_is_a_conflict_worth_retrying(grid: Grid) -> None:
    async def fail() -> None:
        raise StaleWrite

    grid.echo.behaviors["fail"] = fail
    stub = await grid.stub(service)
    with context.acting(USER), pytest.raises(GridError) as caught:
        await stub.Say(Text(value="fail"))
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("CONFLICT", 0.1)


async def test_broken_field_rules_are_listed_by_path(grid: Grid) -> None:
    stub = await grid.stub(service)
    with context.acting(USER), pytest.raises(InvalidRequest) as caught:
        await stub.Say(Text(value="x" * 65, many=["ok", "y"]))
    fields = {each["field"]: each["rule"] for each in caught.value.details["violations"]}
    assert fields == {"value": "string.max_len", "many[1]": "string.min_len"}


async def test_a_method_that_reports_is_not_stopped_by_field_rules(grid: Grid) -> None:
    stub = await grid.stub(service)
    with context.acting(USER):
        assert (await stub.Report(Text(value="x" * 65))).value == "65"


async def test_request_id_and_trace_are_carried(grid: Grid) -> None:
    seen: list[str] = []

    async def look() -> Any:
        seen.extend([context.request_id(), trace.current_traceparent() or ""])
        return Text()

    grid.echo.behaviors["look"] = look
    stub = await grid.stub(service)
    parent = trace.new_traceparent()
    with context.acting(USER, request_id="req-42", traceparent=parent):
        await stub.Say(Text(value="look"))
    assert seen == ["req-42", parent]


async def test_the_smaller_of_own_limit_and_remaining_deadline_is_sent(grid: Grid) -> None:
    left: list[float | None] = []

    async def look() -> Any:
        left.append(context.deadline_remaining())
        return Text()

    grid.echo.behaviors["look"] = look
    stub = await grid.stub(service)
    with context.acting(USER, timeout_seconds=3):
        await stub.Say(Text(value="look"))
    with context.acting(USER, timeout_seconds=300):
        await stub.Say(Text(value="look"))
    assert left[0] is not None
    assert 1 < left[0] < 3.5  # gRPC rounds up on the wire
    assert left[1] is not None
    assert 8 < left[1] < 10.5


async def test_no_call_is_made_when_no_time_is_left(grid: Grid) -> None:
    stub = await grid.stub(service)
    with context.acting(USER, timeout_seconds=0), pytest.raises(DeadlineExceeded):
        await stub.Say(Text())


async def test_a_unary_call_without_a_deadline_gets_one() -> None:
    folder = Path(tempfile.mkdtemp(prefix="jg"))
    async with AsyncExitStack() as stack:
        grid = Grid(folder, stack)
        await grid.start(unary_deadline_seconds=0.05)
        grid.echo.behaviors["hang"] = asyncio.Event().wait
        raw = await stack.enter_async_context(grpc.aio.insecure_channel(grid.address))
        call = EchoStub(raw).Say(
            Text(value="hang"), metadata=(("jg-principal-bin", Signer(KEY).sign(USER)),)
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    shutil.rmtree(folder)


async def test_all_kinds_of_streams_pass_through(grid: Grid) -> None:
    stub = await grid.stub(service)

    async def sent() -> AsyncIterator[Any]:
        yield Text(value="a")
        yield Text(value="b")

    with context.acting(USER):
        assert (await stub.Collect(sent())).value == "a,b"
        assert [each.value async for each in stub.Chat(sent())] == ["a", "b"]
        assert [each.value async for each in stub.Count(Text(value="3"))] == ["0", "1", "2"]


async def test_an_error_in_the_middle_of_a_stream_keeps_its_class(grid: Grid) -> None:
    stub = await grid.stub(service)
    seen = []
    with context.acting(USER), pytest.raises(NotFound) as caught:
        async for each in stub.Count(Text(value="2", many=["end"])):
            seen.append(each.value)  # noqa: PERF401 - the stream ends in an error
    assert (seen, caught.value.reason) == (["0", "1"], "THING_NOT_FOUND")


async def test_streams_are_refused_like_unary_calls(grid: Grid) -> None:
    stub = await grid.stub()
    with pytest.raises(Unauthenticated):
        async for _ in stub.Count(Text(value="1")):
            pass


async def test_a_stopping_server_ends_streams_with_unavailable(grid: Grid) -> None:
    stub = await grid.stub(service)
    with context.acting(USER):
        call = stub.Count(Text(value="1"))
        assert (await call.read()).value == "0"
        await grid.echo.entered.wait()
        async with asyncio.timeout(1.5):  # well under the grace of unary calls
            await grid.server.stop()
        with pytest.raises(Unavailable):
            await call.read()
    assert grid.echo.left.is_set()
    assert not (grid.folder / "grid.sock").exists()


async def test_a_client_that_goes_away_ends_the_servicer(grid: Grid) -> None:
    stub = await grid.stub(service)
    with context.acting(USER):
        call = stub.Count(Text(value="1"))
        await call.read()
        await grid.echo.entered.wait()
        call.cancel()
        async with asyncio.timeout(5):
            await grid.echo.left.wait()


async def test_an_address_that_does_not_answer_is_unavailable_without_naming_it() -> None:
    channel = connect("unix:/nonexistent/grid.sock", principal_source=service)
    with pytest.raises(Unavailable) as caught:
        await EchoStub(channel).Hello(Text())
    assert "/nonexistent" not in caught.value.message
    assert caught.value.retry_after_seconds == 1.0
    await channel.close()


async def test_calls_are_counted_by_method_and_code(grid: Grid) -> None:
    stub = await grid.stub(service)
    name = "grid_rpc_server_calls_total"

    def count(code: str) -> float:
        return metrics.value(name, service=ECHO, method="Say", code=code)

    ok, denied = count("OK"), count("PERMISSION_DENIED")
    with context.acting(USER):
        await stub.Say(Text())
    with pytest.raises(PermissionDenied):
        await stub.Say(Text())
    assert (count("OK"), count("PERMISSION_DENIED")) == (ok + 1, denied + 1)


async def test_sockets_are_private_and_tools_answer(grid: Grid) -> None:
    assert (grid.folder / "grid.sock").stat().st_mode & 0o777 == 0o600
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with grpc.aio.insecure_channel(grid.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=ECHO))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
