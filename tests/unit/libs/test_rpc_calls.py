"""What a call carries there and back: errors, rules, deadlines, traces, streams, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

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
from libs.rpc import Signer, connect, context
from libs.rpc.validate import warm
from libs.telemetry import metrics, trace
from tests.support.echo import ECHO, EchoStub, Text
from tests.support.rpc import KEY, USER, Grid, MissingThing, running, service


@pytest.fixture
async def grid() -> AsyncIterator[Grid]:
    async with running() as found:
        yield found


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
    async with (
        running(unary_deadline_seconds=0.05) as grid,
        grpc.aio.insecure_channel(grid.address) as raw,
    ):
        grid.echo.behaviors["hang"] = asyncio.Event().wait
        call = EchoStub(raw).Say(
            Text(value="hang"), metadata=(("jg-principal-bin", Signer(KEY).sign(USER)),)
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


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


async def test_times_of_unary_calls_are_shown_as_a_histogram(grid: Grid) -> None:
    stub = await grid.stub(service)
    name, labels = "grid_rpc_server_seconds", {"service": ECHO, "method": "Say"}
    before = metrics.value(f"{name}_count", **labels)
    with context.acting(USER):
        await stub.Say(Text())
        assert [each.value async for each in stub.Count(Text(value="0"))] == []
    assert metrics.value(f"{name}_count", **labels) == before + 1
    assert metrics.value(f"{name}_bucket", le="+Inf", **labels) == before + 1
    assert metrics.value("grid_rpc_server_in_flight", **labels) == 0
    assert metrics.value(f"{name}_count", service=ECHO, method="Count") == 0


async def test_with_an_exporter_the_servers_span_is_a_child_of_the_clients(grid: Grid) -> None:
    exporter = InMemorySpanExporter()
    trace.export_to(exporter, "test", batch=False)
    try:
        stub = await grid.stub(service)
        with context.acting(USER):
            await stub.Say(Text())
    finally:
        trace.stop_exporting()
    server, client = exporter.get_finished_spans()
    assert (server.name, client.name) == (f"/{ECHO}/Say", f"call /{ECHO}/Say")
    assert server.parent is not None
    assert server.parent.span_id == client.context.span_id
    assert server.context.trace_id == client.context.trace_id


async def test_only_methods_with_rules_are_enforced_and_warmed(grid: Grid) -> None:
    enforced = {each.name for each in grid.server.methods if each.enforce}
    assert enforced == {"Say", "Hello", "Count", "Whisper"}
    warm(grid.server.methods)


async def test_sockets_are_private_and_tools_answer(grid: Grid) -> None:
    assert (grid.folder / "grid.sock").stat().st_mode & 0o777 == 0o600
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with grpc.aio.insecure_channel(grid.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=ECHO))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
