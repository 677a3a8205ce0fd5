"""Who is calling: bearer keys to principals, from a cache that a revocation reaches at once.

While identity's revocation stream beats, every cached key that it did not name is good. When it
falls silent, a cached key opens doors for at most `key_unconfirmed_seconds` since it was last
confirmed, by a beat or by identity's own answer; after that the answer is 503 until identity can
be asked again. The cache holds SHA-256 digests, never keys.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import grpc.aio
from junglegrid.identity.v1 import identity_internal_service_pb2 as pb
from junglegrid.identity.v1 import identity_internal_service_pb2_grpc as pb_grpc

from gateway.config import GatewayConfig
from gateway.errors import KeyMissing, KeyRefused, KeysUnconfirmed
from libs.api_key import check_key_format, digest
from libs.clock import Clock
from libs.errors import Code, DeadlineExceeded, GridError, Unavailable
from libs.process import TaskPart
from libs.rpc import Principal
from libs.telemetry import logger

NAME = "gateway"
_BEARER = "Bearer "
_REVOKED_KEPT = 100_000
_RECONNECT_SECONDS = 1.0
_log = logger(NAME)


@dataclass(slots=True)
class Known:
    """A resolved key. `expires` is in Unix seconds, 0 for never; `confirmed` is monotonic."""

    key_id: str
    principal: Principal
    expires: float
    confirmed: float


class Keys:
    """The gateway's view of identity's keys. A part: `start` opens the revocation stream."""

    name = "keys"

    def __init__(self, channel: grpc.aio.Channel, config: GatewayConfig, clock: Clock) -> None:
        self._stub: Any = pb_grpc.IdentityInternalServiceStub(channel)
        self._config = config
        self._clock = clock
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Known]] = {}
        self._revoked: OrderedDict[str, None] = OrderedDict()
        self.position = 0  # of the revocation stream
        self._beat = float("-inf")
        self._watch = TaskPart("key-revocations", self._follow, clock=clock)

    async def start(self) -> None:
        await self._watch.start()

    async def stop(self) -> None:
        await self._watch.stop()
        for task in list(self._asking.values()):
            task.cancel()

    def cached(self, authorization: str | None) -> Principal | None:
        """The caller, when it can be told without asking anybody."""
        if authorization is None or authorization[:7] != _BEARER:
            return None
        known = self._known.get(digest(authorization[7:]))
        if known is None or known.expires or not self._confirmed(known):
            return None
        return known.principal

    async def principal(self, authorization: str | None) -> Principal:
        """The caller behind an Authorization header.

        Raises KeyMissing, KeyRefused, or KeysUnconfirmed when identity cannot be asked.
        """
        key = _bearer(authorization)
        mark = digest(key)
        known = self._known.get(mark)
        if known is None or not self._confirmed(known):
            known = await self._ask(mark, key)
        if known.expires and known.expires <= self._clock.now().timestamp():
            raise KeyRefused
        return known.principal

    def forget(self, key_ids: list[str]) -> None:
        """Voids keys at once, and for good: a late answer about them is not believed either."""
        gone = set(key_ids)
        for key_id in key_ids:
            self._revoked[key_id] = None
        while len(self._revoked) > _REVOKED_KEPT:
            self._revoked.popitem(last=False)
        for mark in [mark for mark, known in self._known.items() if known.key_id in gone]:
            del self._known[mark]

    def _confirmed(self, known: Known) -> bool:
        last = max(self._beat, known.confirmed)
        return self._clock.monotonic() - last <= self._config.key_unconfirmed_seconds

    async def _ask(self, mark: bytes, key: str) -> Known:
        """One question for all who wait for the same key; it goes on when one of them leaves."""
        if not check_key_format(key):
            raise KeyRefused
        refused = self._refused.get(mark)
        if refused is not None and self._clock.monotonic() < refused:
            raise KeyRefused
        task = self._asking.get(mark)
        if task is None:
            task = self._asking[mark] = asyncio.create_task(self._resolve(mark, key))
            task.add_done_callback(lambda done: self._asked(mark, done))
        return await asyncio.shield(task)

    def _asked(self, mark: bytes, done: asyncio.Task[Known]) -> None:
        self._asking.pop(mark, None)
        if not done.cancelled():
            done.exception()  # seen here too, so that a caller who left causes no warning

    async def _resolve(self, mark: bytes, key: str) -> Known:
        begun = self._clock.monotonic()
        try:
            reply = await self._stub.ResolveKey(
                pb.ResolveKeyRequest(api_key=key), timeout=self._config.resolve_seconds
            )
        except (Unavailable, DeadlineExceeded):
            raise KeysUnconfirmed from None
        except GridError as error:
            if error.code not in (Code.UNAUTHENTICATED, Code.NOT_FOUND, Code.INVALID_ARGUMENT):
                raise
            self._known.pop(mark, None)
            self._refuse(mark)
            raise KeyRefused from None
        if reply.key_id in self._revoked:
            self._refuse(mark)
            raise KeyRefused
        known = self._known[mark] = _known(reply, begun)
        while len(self._known) > self._config.keys_cached_max:
            self._known.popitem(last=False)
        return known

    def _refuse(self, mark: bytes) -> None:
        """Remembered for a moment, so that a loop with a bad key does not reach identity."""
        self._refused[mark] = self._clock.monotonic() + self._config.unknown_key_seconds
        self._refused.move_to_end(mark)
        while len(self._refused) > self._config.keys_cached_max:
            self._refused.popitem(last=False)

    async def _follow(self) -> None:
        while True:
            call = self._stub.WatchRevocations(pb.WatchRevocationsRequest(after=self.position))
            try:
                await self._read(call)
            except (GridError, TimeoutError) as error:
                _log.warning(
                    "revocation stream lost, connecting again", cause=str(error) or "silence"
                )
            finally:
                call.cancel()
            await self._clock.sleep(_RECONNECT_SECONDS)

    async def _read(self, call: Any) -> None:
        while True:
            async with asyncio.timeout(self._config.revocation_silence_seconds):
                reply = await call.read()
            if reply is grpc.aio.EOF:
                return
            if reply.key_ids:
                self.forget(list(reply.key_ids))
            self.position = max(self.position, reply.position)
            self._beat = self._clock.monotonic()


def _bearer(authorization: str | None) -> str:
    if authorization is None:
        raise KeyMissing
    if authorization[:7] != _BEARER and authorization[:7].lower() != _BEARER.lower():
        raise KeyMissing
    return authorization[7:].strip()


def _known(reply: pb.ResolveKeyResponse, begun: float) -> Known:
    expires = reply.expire_time.ToNanoseconds() / 1e9 if reply.HasField("expire_time") else 0.0
    principal = Principal(
        kind="user",
        subject=reply.key_id,
        workspace_id=reply.workspace_id,
        scopes=frozenset(reply.scopes),
        actor=NAME,  # as the calls will show it, so that it is signed once and not per call
    )
    return Known(reply.key_id, principal, expires, begun)
