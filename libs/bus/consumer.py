"""Applies facts: effect and inbox in one commit per batch, then offsets.

    fetch -> one transaction (drop the known, run handlers, note the inbox) -> commit offsets

A handler that raises takes its batch back to the start: then records go one by one, a failing key
waits while the others go on, and a key that has failed five times is parked (see parking.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from google.protobuf.message import Message

from libs import failpoints
from libs.bus.dispatch import Dispatch, Handler
from libs.bus.inbox import Inbox
from libs.bus.parking import Parking, dead_letter
from libs.bus.port import Bus, Record, Subscription, SubscriptionClosed
from libs.clock import Clock
from libs.db import Database
from libs.errors import Unavailable
from libs.process.task import TaskPart
from libs.telemetry import logger, metrics

__all__ = ["Consumer", "Handler"]

_log = logger("consumer")
_parked = metrics.counter(
    "grid_bus_parked_total", "Records set aside because their key kept failing.", ("consumer",)
)
_AFTER_EFFECT = failpoints.register(
    "bus.consumer.after_effect_before_offset", "effects are durable, the bus does not know it"
)
_TRIES = 5
_PAUSE_SECONDS = 0.05
_UNAVAILABLE_PAUSE_SECONDS = 1.0
_LAZY_SECONDS = 0.05
_PURGE_SECONDS = 3_600.0

Key = tuple[str, str]


class Consumer:
    """One group's member in this process. `handlers` maps a fact's message class (or a whole
    event's) to the function that applies it: `handler(tx, meta, fact)`."""

    def __init__(  # noqa: PLR0913 - the parts it ties together, and two limits
        self,
        bus: Bus,
        database: Database,
        group: str,
        handlers: Mapping[type[Message], Handler],
        clock: Clock,
        *,
        batch_max: int = 256,
        pace_seconds: float = 0.0,
    ) -> None:
        """`pace_seconds` is a pause after each batch, in which the next one gathers: under load one
        commit then serves many facts, and a fact that comes alone is still applied at once."""
        self._bus = bus
        self._database = database
        self._group = group
        self._clock = clock
        self._batch_max = batch_max
        self._pace_seconds = pace_seconds
        self._dispatch = Dispatch(group, handlers)
        self._parking = Parking(database.metadata, group)
        self._inbox = Inbox(database.metadata, group, self._dispatch, self._parking)
        self._parked = _parked.labels(group)
        self._loops = [
            TaskPart(f"{group}-consumer", self._run, clock=clock),
            TaskPart(f"{group}-inbox-purge", self._purge, clock=clock),
        ]

    async def start(self) -> None:
        for loop in self._loops:
            await loop.start()

    async def stop(self) -> None:
        for loop in self._loops:
            await loop.stop()

    async def parked(self) -> list[tuple[str, str, int]]:
        """The parked keys as (topic, key, number of records)."""
        return await self._database.read(self._parking.keys)

    async def replay(self, topic: str, key: str, *, skip: Sequence[str] = ()) -> int:
        """Applies the parked records of one key, in order, in one commit, and lets the key go on;
        returns how many were applied. `skip` names events to drop unapplied. When a handler raises,
        nothing has changed and its error is raised."""
        return await self._database.write(
            lambda tx: self._parking.replay(tx, (topic, key), skip, self._dispatch)
        )

    async def _run(self) -> None:
        subscription = self._bus.subscribe(self._group, self._dispatch.topics)
        try:
            while True:
                records = await subscription.fetch(self._batch_max)
                if self._dispatch.patient:
                    records = await self._gather(subscription, records)
                await self._apply(records)
                await _AFTER_EFFECT.hit_async()
                await subscription.commit(records)
                if self._pace_seconds:
                    await self._clock.sleep(self._pace_seconds)
        except SubscriptionClosed:
            return
        finally:
            await self._leave(subscription)

    async def _gather(self, subscription: Subscription, records: list[Record]) -> list[Record]:
        """Waits for more while all of them may wait."""
        new, until = records, self._clock.monotonic() + _LAZY_SECONDS
        while len(records) < self._batch_max and all(map(self._dispatch.may_wait, new)):
            left = until - self._clock.monotonic()
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    new = await subscription.fetch(self._batch_max - len(records))
            except TimeoutError:
                break
            records = [*records, *new]
        return records

    async def _leave(self, subscription: Subscription) -> None:
        # After a crash of this loop the next run gets what was not committed again.
        await asyncio.shield(subscription.close())

    async def _apply(self, records: Sequence[Record]) -> None:
        while True:
            try:
                await self._database.write(lambda tx: self._inbox.apply(tx, records))
            except Unavailable as error:
                await self._wait_for_store(error)
            except Exception as error:
                _log.warning(
                    "a batch failed, going one by one",
                    consumer=self._group,
                    records=len(records),
                    error=repr(error),
                )
                await self._apply_one_by_one(records)
                return
            else:
                return

    async def _apply_one_by_one(self, records: Sequence[Record]) -> None:
        waiting: dict[Key, list[Record]] = {}
        for record in records:
            waiting.setdefault((record.topic, record.key), []).append(record)
        for tries in range(1, _TRIES + 1):
            failed: dict[Key, list[Record]] = {}
            causes: dict[Key, BaseException] = {}
            for key, queue in waiting.items():
                left, cause = await self._apply_key(queue)
                if cause is not None:
                    failed[key], causes[key] = left, cause
            if not failed:
                return
            waiting = failed
            if tries < _TRIES:
                await self._clock.sleep(_PAUSE_SECONDS * 2 ** (tries - 1))
        for key, queue in waiting.items():
            await self._park(queue, causes[key])

    async def _apply_key(
        self, queue: Sequence[Record]
    ) -> tuple[list[Record], BaseException | None]:
        """Applies records of one key until one fails; returns what is left, and why."""
        done = 0
        while done < len(queue):
            record = queue[done]
            try:
                await self._database.write(lambda tx, one=record: self._inbox.apply(tx, [one]))  # type: ignore[misc]
                done += 1
            except Unavailable as error:
                await self._wait_for_store(error)
            except Exception as error:
                return list(queue[done:]), error
        return [], None

    async def _park(self, queue: Sequence[Record], cause: BaseException) -> None:
        first = queue[0]
        _log.error(
            "key parked",
            consumer=self._group,
            topic=first.topic,
            key=first.key,
            event_id=first.event_id,
            error=repr(cause),
        )
        # Before the row: a crash in between tells the dead letter twice rather than never.
        await self._bus.publish([dead_letter(first, self._group, cause)])
        await self._database.write(lambda tx: self._inbox.park(tx, queue, repr(cause)))
        self._parked.inc(len(queue))

    async def _wait_for_store(self, error: Unavailable) -> None:
        """The store's trouble is no fault of a record: it waits, and is not parked."""
        _log.warning("the store is unavailable", consumer=self._group, error=repr(error))
        await self._clock.sleep(error.retry_after_seconds or _UNAVAILABLE_PAUSE_SECONDS)

    async def _purge(self) -> None:
        while True:
            await self._clock.sleep(_PURGE_SECONDS)
            while await self._database.write(self._inbox.purge, long=True):
                pass
