"""Sends the spools of all attempts over one stream, and remembers what the grid has.

Each attempt has a feed: an offset up to which its spool was sent, and the batches under way. A
batch is acknowledged by the numbers of its lines; the spool's offset is kept once all lines before
it are durable, so that a new stream, or a new daemon, goes on from there and repeats at most a
window. Memory is bounded: a feed with a full window reads no more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from junglegrid.logs.v1 import log_ingest_service_pb2 as pb

from libs.clock import Clock
from libs.errors import GridError
from libs.telemetry import logger, metrics
from services.node_daemon.config import Limits
from services.node_daemon.grid import Backoff, Grid
from services.node_daemon.runtime.port import Logs
from services.node_daemon.spool import STDERR, STDOUT, Kind, LogBatch

_log = logger("logs_out")
_sent = metrics.counter("grid_node_log_lines_total", "Log lines sent, repeats included.")
_KINDS = {STDOUT: pb.LOG_STREAM_KIND_STDOUT, STDERR: pb.LOG_STREAM_KIND_STDERR}
_WAIT_FOR_GRANT = "GRANT_INVALID"


@dataclass(slots=True)
class _Batch:
    """Lines under way: up to which number of each stream, and the spool's offset behind them."""

    last: dict[int, int]
    offset: int
    size: int


@dataclass(slots=True)
class Feed:
    """One attempt's log on its way. `done` is set when nothing more will be sent; `gap` says that
    the grid may not have all of it."""

    lease_id: str
    logs: Logs
    grant: bytes = field(repr=False)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    gap: bool = False
    sent_grant: bytes = field(default=b"", repr=False)
    waiting: deque[_Batch] = field(default_factory=deque)
    window: int = 0
    offset: int = 0
    durable: dict[int, int] = field(default_factory=dict)
    held_back: bool = False  # until a fresh grant comes
    giving_up: bool = False
    kept: int = 0
    end: int | None = None  # length of the ended spool
    asking: bool = False
    asked: bool = False
    rounds: int = 0  # times it was sent back
    skip: int = 0  # answers still to come to requests that were given up

    def rewind(self, *, new_stream: bool) -> None:
        """Everything that was not acknowledged will be sent again."""
        self.skip = 0 if new_stream else self.skip + len(self.waiting)
        self.rounds += 1
        self.waiting.clear()
        self.window, self.offset, self.sent_grant = 0, self.kept, b""
        self.asking = self.asked


class LogsOut:
    """A part: `run` keeps the stream while there is something to send."""

    def __init__(self, grid: Grid, clock: Clock, limits: Limits) -> None:
        self._grid = grid
        self._clock = clock
        self._limits = limits
        self._feeds: dict[str, Feed] = {}
        self._dirty: dict[str, None] = {}
        self._bell = asyncio.Event()
        self._sent_at = 0.0
        self._stream_number = 0
        self._hurry = asyncio.Event()

    def attach(self, lease_id: str, logs: Logs, grant: bytes) -> Feed:
        """Begins, or goes on, to send a log."""
        feed = Feed(lease_id, logs, grant)
        feed.kept = feed.offset = logs.acknowledged
        self._feeds[lease_id] = feed
        logs.watch(lambda: self._more(lease_id))
        self._more(lease_id)
        return feed

    def detach(self, lease_id: str) -> None:
        """Forgets a log, sent or not."""
        self._feeds.pop(lease_id, None)
        if not self._feeds:
            self._bell.set()  # the stream begins to count its idle time

    def renew(self, lease_id: str, grant: bytes) -> None:
        """A fresh grant."""
        feed = self._feeds.get(lease_id)
        if feed is not None:
            feed.grant, feed.held_back = grant, False
            self._more(lease_id)

    async def finish(self, feed: Feed, spool_bytes: int) -> None:
        """Waits until the ended log is durable; gives the rest up after `log_gap_seconds`, and at
        once when all of a spool is sent whose writer died before it could write its end."""
        feed.end = spool_bytes
        self._hurry.set()
        self._check_end(feed)
        self._more(feed.lease_id)
        try:
            async with asyncio.timeout(self._limits.log_gap_seconds):
                await feed.done.wait()
        except TimeoutError:
            self._give_up(feed)
            feed.done.set()

    async def run(self) -> None:
        """Keeps a stream while logs are on their way. An idle one would cost pings and wake-ups."""
        backoff = Backoff(self._clock, self._limits.retry_seconds, self._limits.retry_seconds_max)
        while True:
            await self._bell.wait()
            if not self._feeds:
                self._bell.clear()
                continue
            heard = False
            try:
                heard = await self._stream(backoff)
            except GridError as error:
                _log.info("log stream ended, trying again", reason=error.reason)
            if self._feeds:
                self._bell.set()
            if not heard:
                await backoff.pause()

    async def _stream(self, backoff: Backoff) -> bool:
        """Whether the grid has answered on it before it ended in peace."""
        heard = False
        self._stream_number += 1
        for feed in self._feeds.values():
            feed.rewind(new_stream=True)
            self._more(feed.lease_id)
        call = self._grid.logs.AppendLogs(self._requests(self._stream_number))
        try:
            async for response in call:
                heard = True
                backoff.reset()
                self._acknowledged(response)
        finally:
            call.cancel()
            # gRPC leaves the iterator of this call to itself: from here on it must see that it is
            # not the current one, or it would take what is meant for the next call.
            self._stream_number += 1
        for feed in self._feeds.values():
            feed.rewind(new_stream=True)
            self._more(feed.lease_id)
        return heard

    async def _requests(self, stream: int) -> AsyncIterator[pb.AppendLogsRequest]:
        while await self._rung():
            await self._gather()
            if stream != self._stream_number:
                return
            self._bell.clear()
            dirty, self._dirty = self._dirty, {}
            for lease_id in dirty:
                feed = self._feeds.get(lease_id)
                if feed is not None:
                    for request in self._next(feed):
                        yield request
            self._sent_at = self._clock.monotonic()

    async def _rung(self) -> bool:
        """False when there has been no log to send for a while."""
        try:
            async with asyncio.timeout(None if self._feeds else self._limits.log_idle_seconds):
                await self._bell.wait()
        except TimeoutError:
            return False
        return True

    async def _gather(self) -> None:
        """Lets small writes gather, unless nothing was sent lately or a log is at its end."""
        left = self._sent_at + self._limits.log_batch_seconds - self._clock.monotonic()
        if left > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._hurry.wait()
        self._hurry.clear()

    def _next(self, feed: Feed) -> Iterator[pb.AppendLogsRequest]:
        if feed.giving_up:
            feed.giving_up = False
            yield self._farewell(feed)
            feed.done.set()
            return
        if feed.asking and not feed.held_back:
            feed.asking = False
            feed.waiting.append(_Batch({}, feed.kept, 0))
            yield self._begin(feed)
        while not feed.held_back and not feed.done.is_set() and self._room(feed):
            start, round_ = feed.offset, feed.rounds
            try:
                batch = feed.logs.read(start, self._limits.log_batch_bytes)
            except (OSError, ValueError) as error:
                # One spool that cannot be read must not end the stream that all share.
                _log.warning("a log cannot be read", lease_id=feed.lease_id, error=repr(error))
                self._give_up(feed)
                return
            if not batch.blocks:
                return
            feed.offset = batch.next_offset
            for request, note in self._requests_of(feed, batch, start):
                feed.waiting.append(note)
                feed.window += note.size
                yield request
                # While the request went out, an answer may have sent the feed back.
                if feed.rounds != round_:
                    break

    def _room(self, feed: Feed) -> bool:
        return feed.window < self._limits.log_window_bytes

    def _requests_of(
        self, feed: Feed, batch: LogBatch, start: int
    ) -> Iterator[tuple[pb.AppendLogsRequest, _Batch]]:
        """One request for a batch, or several when it has very many lines. Only the last one
        carries the offset."""
        last: dict[int, int] = {}
        request, size, lines = self._begin(feed), 0, 0
        for block in batch.blocks:
            if block.kind is Kind.EOF:
                request.ends.add(stream=_KINDS[block.stream], last_seq=block.seq)
                last.setdefault(block.stream, block.seq)
                continue
            for entry in block.entries():
                if lines == self._limits.log_batch_lines:
                    yield request, _Batch(last, start, size)
                    request, last, size, lines = self._begin(feed), {}, 0, 0
                request.lines.add(
                    stream=_KINDS[entry.stream],
                    seq=entry.seq,
                    data=entry.data,
                    partial=entry.continued,
                    node_time_micros=entry.node_time_ns // 1000,
                )
                last[entry.stream] = entry.seq
                size += len(entry.data) + 16
                lines += 1
        _sent.inc(lines)
        yield request, _Batch(last, batch.next_offset, size)

    def _begin(self, feed: Feed) -> pb.AppendLogsRequest:
        request = pb.AppendLogsRequest(lease_id=feed.lease_id)
        if feed.sent_grant != feed.grant:
            request.attempt_grant = feed.sent_grant = feed.grant
        return request

    def _acknowledged(self, response: pb.AppendLogsResponse) -> None:
        feed = self._feeds.get(response.lease_id)
        if feed is None:
            return
        if feed.skip or not feed.waiting:
            feed.skip = max(feed.skip - 1, 0)
            return
        # The answers come in the order of the requests: this one is the oldest batch's.
        batch = feed.waiting.popleft()
        feed.window -= batch.size
        if response.refused:
            self._refused(feed, response.refused)
            return
        for end in response.durable:
            feed.durable[end.stream] = end.last_seq
        if response.complete:
            feed.done.set()
        self._advance(feed, batch)
        self._more(feed.lease_id)

    def _advance(self, feed: Feed, batch: _Batch) -> None:
        if any(feed.durable.get(_KINDS[each], 0) < seq for each, seq in batch.last.items()):
            # A line before it is missing there: go back to what is known to be kept.
            feed.rewind(new_stream=False)
            return
        if batch.offset > feed.kept:
            feed.kept = batch.offset
            feed.logs.acknowledge(batch.offset)
        self._check_end(feed)

    def _check_end(self, feed: Feed) -> None:
        """All of an ended spool is there. Whether the grid has its end too is asked once: a former
        daemon may have sent it all. If not, the spool's writer died before it could write it."""
        if feed.end is None or feed.kept < feed.end or feed.done.is_set():
            return
        if feed.asked:
            self._give_up(feed)
            return
        feed.asking = feed.asked = True
        self._more(feed.lease_id)

    def _give_up(self, feed: Feed) -> None:
        feed.giving_up = True
        feed.gap = feed.end != 0
        self._more(feed.lease_id)
        if feed.gap:
            _log.warning("the rest of a log was given up", lease_id=feed.lease_id)

    def _farewell(self, feed: Feed) -> pb.AppendLogsRequest:
        """The last word: a gap, or that there never was a line."""
        request = pb.AppendLogsRequest(
            lease_id=feed.lease_id, attempt_grant=feed.grant, gap=feed.gap
        )
        if not feed.gap:
            for kind in _KINDS.values():
                request.ends.add(stream=kind, last_seq=0)
        return request

    def _refused(self, feed: Feed, why: str) -> None:
        feed.rewind(new_stream=False)
        if why == _WAIT_FOR_GRANT:
            feed.held_back = True
            return
        _log.warning("the grid takes no more of a log", lease_id=feed.lease_id, why=why)
        feed.gap = why != "LOG_LIMIT"
        feed.done.set()

    def _more(self, lease_id: str) -> None:
        self._dirty[lease_id] = None
        self._bell.set()
