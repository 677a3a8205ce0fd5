"""The control stream: says what this node holds, hears what it should hold, keeps the leases alive.

A lease lives for its TTL after the node *sent* the last request that was acknowledged, by the
node's monotonic clock. A reconnect is nothing special: Hello, the whole list, and on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from junglegrid.nodes.v1 import lease_pb2
from junglegrid.nodes.v1 import node_session_service_pb2 as pb

from libs.clock import Clock
from libs.errors import Code, GridError, Unavailable
from libs.telemetry import logger, metrics
from services.node_daemon import convert
from services.node_daemon.config import Limits
from services.node_daemon.grid import Backoff, Grid
from services.node_daemon.leases import Leases

_log = logger("session")
_online = metrics.gauge("grid_node_online", "1 while a session is open.")
_CREDENTIAL_VOID = "NODE_CREDENTIAL_INVALID"


class NodeRevoked(Exception):
    """The grid does not want this node back."""


@dataclass(slots=True)
class _Sent:
    """One request under way: when it was sent, and up to which step of each lease it told."""

    at: float
    steps: dict[str, int]


class Session:
    """A part, and watched: it dies when the node is revoked. `look` is called before each full
    report: it says whether the node wants no new work, and why."""

    name = "session"

    def __init__(
        self,
        grid: Grid,
        inventory: lease_pb2.NodeInventory,
        clock: Clock,
        limits: Limits,
        *,
        look: Callable[[], str],
        on_open: Callable[[str], None],
    ) -> None:
        self.epoch = 0
        self.deadline = 0.0  # until a session has renewed the leases
        self.leases: Leases
        self._grid = grid
        self._inventory = inventory
        self._clock = clock
        self._limits = limits
        self._look = look
        self._on_open = on_open
        self._heartbeat = 5.0
        self._ttl = 0.0
        self._seq = 0
        self._sent: dict[int, _Sent] = {}
        self._heard_at = 0.0
        self._beat_at = 0.0
        self._silent = False
        self._news: dict[str, None] = {}
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to connect; returns at once, for the grid may be away."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Ends the stream; the node's leases live on until their deadline."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def watch(self) -> None:
        """Raises NodeRevoked."""
        if self._task is not None:
            await asyncio.shield(self._task)

    def tell(self, lease_id: str) -> None:
        """A lease has news: they go out with the next turn of the writer."""
        self._news[lease_id] = None
        self._bell.set()

    async def _run(self) -> None:
        backoff = Backoff(self._clock, self._limits.retry_seconds, self._limits.retry_seconds_max)
        while True:
            try:
                await self._stream(backoff)
            except GridError as error:
                if error.code is Code.UNAUTHENTICATED and error.reason == _CREDENTIAL_VOID:
                    self.leases.kill_all("the node's credential is void")
                    raise NodeRevoked("the grid refuses this node's credential") from error
                _log.info("session lost, trying again", reason=error.reason, error=error.message)
            finally:
                _online.set(0)
            await backoff.pause()

    async def _stream(self, backoff: Backoff) -> None:
        call = self._grid.session.Sync()
        self._seq, self._sent, self._heard_at = 0, {}, self._clock.monotonic()
        self._silent = False
        writer = None
        try:
            await self._send(call, hello=True)
            writer = asyncio.create_task(self._write(call))
            writer.add_done_callback(lambda task: self._ended(task, call))
            async for response in call:
                backoff.reset()
                self._hear(response)
            raise Unavailable("the grid has ended the session")
        except asyncio.CancelledError:
            if not self._silent:
                raise
            # gRPC says so when our own writer has cancelled the call.
            raise Unavailable("the grid is silent, or this node could not speak") from None
        finally:
            call.cancel()
            if writer is not None:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    def _ended(self, writer: asyncio.Task[None], call: Any) -> None:
        """Without its writer a stream is no use: its leases would run out unsaid."""
        if writer.cancelled():
            return
        if (error := writer.exception()) is not None:
            _log.warning("the session's writer failed", error=repr(error))
        self._silent = True
        call.cancel()

    async def _write(self, call: Any) -> None:
        """Heartbeats, and news in between. Returns when nothing is heard any more."""
        while True:
            now, beat_at = self._clock.monotonic(), self._beat_at + self._heartbeat
            if now - self._heard_at > self._heartbeat * self._limits.silent_heartbeats_max:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(beat_at - now, 0.0)):
                    await self._bell.wait()
            self._bell.clear()
            if self._clock.monotonic() >= beat_at:
                await self._send(call)
            elif self._news:
                await self._send(call, only=list(self._news))

    async def _send(
        self, call: Any, *, hello: bool = False, only: Sequence[str] | None = None
    ) -> None:
        """One request: of all leases, or of some."""
        self._news.clear()
        self._seq += 1
        if only is None:
            self._beat_at = self._clock.monotonic()
            self.leases.cannot = self._look()
        request = pb.SyncRequest(
            seq=self._seq, full=only is None, draining=bool(self.leases.cannot)
        )
        if hello:
            request.hello.daemon_version = self._inventory.daemon_version
            request.hello.held_lease_ids.extend(self.leases.ids)
            request.inventory.CopyFrom(self._inventory)
        sent = _Sent(self._clock.monotonic(), {})
        for lease in self.leases if only is None else filter(None, map(self.leases.get, only)):
            report = lease.report()
            if report is not None:
                request.leases.append(report)
                sent.steps[lease.want.lease_id] = lease.steps
        self._sent[self._seq] = sent
        await call.write(request)

    def _hear(self, response: pb.SyncResponse) -> None:
        self._heard_at = self._clock.monotonic()
        if response.fenced:
            self.leases.kill_all("the grid has ended this node's session")
            if response.final:
                raise NodeRevoked("the grid has revoked this node")
            raise Unavailable("a newer session of this node exists")
        if response.HasField("welcome"):
            self._welcome(response.welcome)
        self._acknowledged(response.ack_seq)
        for grant in response.grants:
            lease = self.leases.get(grant.lease_id)
            if lease is not None:
                lease.renew_grant(grant.attempt_grant)
        if response.full or response.leases:
            self.leases.told([convert.want(each) for each in response.leases], full=response.full)

    def _welcome(self, welcome: pb.Welcome) -> None:
        """The first of a stream opens the session; later ones renew the token."""
        self._grid.token = welcome.session_token
        self._heartbeat = welcome.heartbeat_interval.ToNanoseconds() / 1e9
        self._bell.set()  # the writer may be waiting for a later beat
        self._ttl = welcome.lease_ttl.ToNanoseconds() / 1e9
        self.leases.stop_grace_seconds = welcome.stop_grace.ToNanoseconds() / 1e9
        if welcome.session_epoch != self.epoch:
            self.epoch = welcome.session_epoch
            self.leases.opened(self.epoch)
            _log.info("session open", node_id=welcome.node_id, session_epoch=self.epoch)
            # Being heard opens the session, so it renews as an acknowledgement does.
            self._renew(self._sent[1].at)
            self._on_open(welcome.node_id)
        _online.set(1)

    def _acknowledged(self, seq: int) -> None:
        newest = None
        for number in [each for each in self._sent if each <= seq]:
            newest = self._sent.pop(number)
            for lease_id, steps in newest.steps.items():
                lease = self.leases.get(lease_id)
                if lease is not None:
                    lease.told(steps)
        if newest is not None:
            self._renew(newest.at)

    def _renew(self, sent_at: float) -> None:
        self.deadline = max(self.deadline, sent_at + self._ttl)
        self.leases.renew(self.deadline)
