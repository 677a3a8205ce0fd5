"""The log sender alone: windows, holes, grants, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from junglegrid.logs.v1 import log_ingest_service_pb2 as pb

from libs.clock import SystemClock
from libs.errors import Unavailable
from services.node_daemon.config import Limits
from services.node_daemon.logs_out import LogsOut
from services.node_daemon.spool import Kind, LogBatch, LogBlock

LIMITS = Limits(retry_seconds=0.001, retry_seconds_max=0.002, log_gap_seconds=0.3,
                log_window_bytes=2000, log_batch_bytes=500, log_batch_lines=7)  # fmt: skip


class Spool:
    """Blocks at offsets 1, 2, 3 ...; what `Logs` promises."""

    def __init__(self, *blocks: LogBlock) -> None:
        self.blocks = list(blocks)
        self.acknowledged = 0
        self.reads = 0

    def read(self, offset: int, limit: int = 65536) -> LogBatch:
        self.reads += 1
        return LogBatch(tuple(self.blocks[offset : offset + 1]), min(offset + 1, len(self.blocks)))

    def acknowledge(self, offset: int) -> None:
        self.acknowledged = offset

    def watch(self, callback: Callable[[], None]) -> None:
        self.more = callback


class Wire:
    """The grid's end of the stream: `answer` gives the replies to a request, or raises."""

    def __init__(self, answer: Callable[[pb.AppendLogsRequest], list[Any]]) -> None:
        self.answer = answer
        self.seen: list[pb.AppendLogsRequest] = []
        self.logs = self

    def AppendLogs(self, requests: AsyncIterator[Any]) -> Wire:
        self._requests = requests
        return self

    def cancel(self) -> None: ...

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for request in self._requests:
            self.seen.append(request)
            for reply in self.answer(request):
                yield reply


def lines(stream: int, first: int, count: int) -> LogBlock:
    texts = tuple(f"{number}".encode() for number in range(first, first + count))
    return LogBlock(stream, first, 0, Kind.LINES, texts)


def eof(stream: int, last: int) -> LogBlock:
    return LogBlock(stream, last, 0, Kind.EOF, ())


class Keeper:
    """Stores like the real one and answers with what is durable."""

    def __init__(self) -> None:
        self.kept: dict[int, int] = {1: 0, 2: 0}
        self.ends: dict[int, int] = {}

    def __call__(self, request: pb.AppendLogsRequest) -> list[Any]:
        for line in request.lines:
            if line.seq == self.kept[line.stream] + 1:
                self.kept[line.stream] = line.seq
        self.ends |= {end.stream: end.last_seq for end in request.ends}
        durable = [
            pb.StreamEnd(stream=stream, last_seq=last)  # type: ignore[arg-type]
            for stream, last in self.kept.items()
        ]
        complete = all(self.ends.get(stream) == last for stream, last in self.kept.items())
        return [pb.AppendLogsResponse(lease_id="l", durable=durable, complete=complete)]


@pytest.fixture
def whole() -> Spool:
    return Spool(lines(1, 1, 20), lines(2, 1, 3), lines(1, 21, 30), eof(1, 50), eof(2, 3))


async def send(spool: Spool, wire: Wire, **ready: Any) -> Any:
    out = LogsOut(wire, SystemClock(), LIMITS)  # type: ignore[arg-type]
    task = asyncio.create_task(out.run())
    feed = out.attach("l", spool, b"grant")
    if ready:
        ready["then"](out)
    await asyncio.wait_for(out.finish(feed, len(spool.blocks)), 5)
    task.cancel()
    return feed


async def test_all_of_it_arrives_in_small_requests(whole: Spool) -> None:
    keeper = Keeper()
    wire = Wire(keeper)
    feed = await send(whole, wire)
    assert keeper.kept == {1: 50, 2: 3} and not feed.gap
    assert max(len(request.lines) for request in wire.seen) <= LIMITS.log_batch_lines
    assert [bool(request.attempt_grant) for request in wire.seen].count(True) == 1
    assert whole.acknowledged >= 4


async def test_a_broken_stream_goes_on_from_what_is_durable(whole: Spool) -> None:
    keeper, breaks = Keeper(), iter([True, False, True])

    def answer(request: pb.AppendLogsRequest) -> list[Any]:
        replies = keeper(request)
        if next(breaks, False):
            raise Unavailable("broken")
        return replies

    wire = Wire(answer)
    await send(whole, wire)
    assert keeper.kept == {1: 50, 2: 3}
    assert [bool(request.attempt_grant) for request in wire.seen].count(True) == 3


async def test_a_hole_is_filled(whole: Spool) -> None:
    keeper, dropped = Keeper(), iter([False, True])

    def answer(request: pb.AppendLogsRequest) -> list[Any]:
        if next(dropped, False):
            del request.lines[:]
        return keeper(request)

    feed = await send(whole, Wire(answer))
    assert keeper.kept == {1: 50, 2: 3} and not feed.gap


async def test_a_void_grant_waits_for_the_next(whole: Spool) -> None:
    keeper = Keeper()

    def answer(request: pb.AppendLogsRequest) -> list[Any]:
        if answer_grant != request.attempt_grant and not keeper.kept[1]:
            return [pb.AppendLogsResponse(lease_id="l", refused="GRANT_INVALID")]
        return keeper(request)

    answer_grant = b"fresh"
    loop = asyncio.get_running_loop()
    feed = await send(
        whole,
        Wire(answer),
        then=lambda out: loop.call_later(0.05, out.renew, "l", b"fresh"),
    )
    assert keeper.kept == {1: 50, 2: 3} and not feed.gap


async def test_a_sealed_log_ends_at_once(whole: Spool) -> None:
    wire = Wire(lambda _: [pb.AppendLogsResponse(lease_id="l", refused="SEALED")])
    feed = await send(whole, wire)
    assert feed.gap and len(wire.seen) < 12


async def test_a_full_window_reads_no_more() -> None:
    spool = Spool(*(lines(1, 1 + 100 * each, 100) for each in range(1000)))
    wire = Wire(lambda _: [])
    feed = await send(spool, wire)
    assert feed.gap and spool.reads < 10
    assert wire.seen[-1].gap


async def test_a_spool_without_an_end_is_given_up_when_it_is_sent() -> None:
    spool, keeper = Spool(lines(1, 1, 5)), Keeper()
    feed = await send(spool, Wire(keeper))
    assert feed.gap and keeper.kept[1] == 5


async def test_a_log_that_a_former_daemon_sent_whole_is_no_gap(whole: Spool) -> None:
    keeper = Keeper()
    await send(whole, Wire(keeper))
    wire = Wire(keeper)
    feed = await send(whole, wire)
    assert not feed.gap
    assert [(len(request.lines), request.gap) for request in wire.seen] == [(0, False)]


async def test_an_empty_spool_is_no_gap() -> None:
    keeper = Keeper()
    feed = await send(Spool(), Wire(keeper))
    assert not feed.gap


async def test_a_spool_that_cannot_be_read_is_a_gap_and_takes_nothing_from_others(
    whole: Spool,
) -> None:
    class Broken(Spool):
        def read(self, offset: int, limit: int = 65536) -> LogBatch:
            raise OSError(24, "Too many open files")

    keeper = Keeper()
    out = LogsOut(Wire(keeper), SystemClock(), LIMITS)  # type: ignore[arg-type]
    task = asyncio.create_task(out.run())
    broken = out.attach("broken", Broken(), b"grant")
    feed = out.attach("l", whole, b"grant")
    await asyncio.wait_for(asyncio.gather(out.finish(broken, 9), out.finish(feed, 5)), 5)
    assert not task.done(), "the stream that all share has died"
    assert broken.gap and not feed.gap and keeper.kept == {1: 50, 2: 3}
    task.cancel()


async def test_an_idle_stream_is_closed_and_the_next_log_opens_another(whole: Spool) -> None:
    keeper, opened = Keeper(), []

    class Counting(Wire):
        def AppendLogs(self, requests: AsyncIterator[Any]) -> Wire:
            opened.append(requests)
            return super().AppendLogs(requests)

    limits = replace(LIMITS, log_idle_seconds=0.01)
    out = LogsOut(Counting(keeper), SystemClock(), limits)  # type: ignore[arg-type]
    task = asyncio.create_task(out.run())
    for attempt in (1, 2):
        spool = Spool(*whole.blocks)
        feed = out.attach("l", spool, b"grant")
        await asyncio.wait_for(out.finish(feed, len(spool.blocks)), 5)
        out.detach("l")
        assert not feed.gap and len(opened) == attempt
        await asyncio.sleep(0.05)
        assert len(opened) == attempt
    task.cancel()
