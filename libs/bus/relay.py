"""Carries committed facts from a service's outbox to the bus, in order per key.

Rows come in two ways. While all is well, straight from memory after each commit. At the start,
after trouble and in a slow sweep, from the table: everything unpublished, in order. The table
always goes first, because it may hold older facts of the same keys. Whatever is told twice, the
inbox drops.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime

from libs import failpoints
from libs.bus import relay_rows as rows
from libs.bus.events import record
from libs.bus.port import Bus, PartialPublish
from libs.bus.stopped import StoppedKeys
from libs.clock import Clock
from libs.db import Database, OutboxEvent
from libs.process.task import TaskPart
from libs.telemetry import logger, metrics

_log = logger("relay")
_relayed = metrics.counter("grid_relay_published_total", "Facts given to the bus.", ("service",))
_stopped_gauge = metrics.gauge("grid_relay_stopped_keys", "Keys the bus refuses.", ("service",))
_AFTER_PUBLISH = failpoints.register(
    "bus.relay.after_publish_before_mark", "the bus has the facts, the outbox does not know it"
)
_BATCH = 256
# Beyond this many facts in memory, the table is the queue.
_MEMORY_MAX = 20_000
_MARK_AT_LATEST_SECONDS = 0.25
_MARK_AT_ONCE = 512
_PAUSE_SECONDS = (0.1, 5.0)
_PURGE_SECONDS = 3_600.0


class Relay:
    """The one relay of one service's database. `sweep_seconds` is how long a fact can stay untold
    when the hint from its commit was lost."""

    def __init__(
        self, database: Database, bus: Bus, clock: Clock, *, sweep_seconds: float = 30.0
    ) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._sweep_seconds = sweep_seconds
        self._rows = rows.OutboxRows(database)
        self._memory: deque[OutboxEvent] = deque()
        # Told from the table while `_memory` may hold them too.
        self._from_table: set[str] = set()
        self._unmarked: dict[str, None] = {}
        self._stopped = StoppedKeys()
        self._reload = True
        self._wake = asyncio.Event()
        self._mark_soon: asyncio.Task[None] | None = None
        self._retry_soon: asyncio.Task[None] | None = None
        name = database.service
        self._relayed = _relayed.labels(name)
        self._gauge = _stopped_gauge.labels(name)
        self._loops = [
            TaskPart(f"{name}-relay", self._run, clock=clock),
            TaskPart(f"{name}-relay-sweep", self._sweep, clock=clock),
            TaskPart(f"{name}-relay-purge", self._purge, clock=clock),
        ]
        database.on_outbox(self._committed)

    async def start(self) -> None:
        if await self._rows.notice_new_bus(self._bus.identity()):
            _log.warning("the bus is a new one, telling it everything that is kept")
        for loop in self._loops:
            await loop.start()

    async def stop(self) -> None:
        for loop in self._loops:
            await loop.stop()
        for task in (self._mark_soon, self._retry_soon):
            if task is not None:
                task.cancel()
        try:
            await self.flush()
        except Exception as error:
            # They are told again after the next start.
            _log.warning("published facts could not be marked", error=repr(error))

    async def flush(self) -> None:
        """Marks in the outbox what the bus has. Until then a crash makes it be told again."""
        ids = list(self._unmarked)
        if ids:
            await self._bus.sync()
            await self._rows.mark(ids)
            for event_id in ids:
                self._unmarked.pop(event_id, None)

    async def republish(self, since: datetime) -> int:
        """Tells again all facts committed at or after `since`; returns how many."""
        count = await self._rows.unmark(since)
        self._reload_soon()
        return count

    def _committed(self, events: Sequence[OutboxEvent]) -> None:
        if len(self._memory) + len(events) > _MEMORY_MAX:
            self._memory.clear()
            self._reload = True
        else:
            self._memory.extend(events)
        self._wake.set()

    def _reload_soon(self) -> None:
        self._reload = True
        self._wake.set()

    async def _run(self) -> None:
        # Also after a crash of this loop, which may have lost what it held.
        self._reload = True
        while True:
            if self._reload:
                await self._tell_table()
            elif self._stopped.due:
                await self._retry()
            elif self._memory:
                await self._tell_memory()
            else:
                self._from_table.clear()
                self._wake.clear()
                await self._wake.wait()

    async def _tell_table(self) -> None:
        self._reload = False
        await self.flush()
        place = rows.BEGINNING
        while page := await self._rows.unpublished(place):
            self._from_table.update(event.event_id for event in page)
            await self._tell(event for event in page if event.event_id not in self._unmarked)
            place = (page[-1].topic, page[-1].key, page[-1].aggregate_seq)

    async def _tell_memory(self) -> None:
        taken = [self._memory.popleft() for _ in range(min(_BATCH, len(self._memory)))]
        # The table may have been read between a commit and its hint.
        known = self._from_table, self._unmarked
        await self._tell(e for e in taken if not any(e.event_id in ids for ids in known))

    async def _retry(self) -> None:
        events, more_in_table = self._stopped.take()
        # First, and nothing else in between: the table has those keys' later facts.
        self._reload = self._reload or more_in_table
        await self._tell(events)
        if not self._stopped:
            self._stopped.recovered()

    async def _tell(self, events: Iterable[OutboxEvent]) -> None:
        sending = [event for event in events if not self._stopped.hold_back(event)]
        if not sending:
            return
        failed = await self._publish(sending)
        await _AFTER_PUBLISH.hit_async()
        told = [event.event_id for event in sending if event.event_id not in failed]
        self._unmarked.update(dict.fromkeys(told))
        self._relayed.inc(len(told))
        if failed:
            self._stop_keys([event for event in sending if event.event_id in failed])
        self._gauge.set(len(self._stopped))
        if len(self._unmarked) >= _MARK_AT_ONCE:
            await self.flush()
        elif self._unmarked and (self._mark_soon is None or self._mark_soon.done()):
            self._mark_soon = asyncio.create_task(self._mark_later())

    async def _publish(self, events: Sequence[OutboxEvent]) -> set[str]:
        """Publishes, however long it takes; returns the ids of facts that the bus refuses."""
        records = [record(event) for event in events]
        pause, pause_max = _PAUSE_SECONDS
        while True:
            try:
                await self._bus.publish(records)
            except PartialPublish as refused:
                return set(refused.failed)
            except Exception as error:
                _log.warning("publishing failed", error=repr(error), retry_in_seconds=pause)
            else:
                return set()
            await self._clock.sleep(pause)
            pause = min(pause * 2, pause_max)

    def _stop_keys(self, events: Sequence[OutboxEvent]) -> None:
        self._stopped.add(events)
        _log.error("the bus refuses facts, their keys wait", keys=len(self._stopped))
        if self._retry_soon is None or self._retry_soon.done():
            self._retry_soon = asyncio.create_task(self._retry_later())

    async def _retry_later(self) -> None:
        await self._clock.sleep(self._stopped.pause_seconds)
        self._stopped.due = True
        self._wake.set()

    async def _mark_later(self) -> None:
        await self._clock.sleep(_MARK_AT_LATEST_SECONDS)
        try:
            await self.flush()
        except Exception as error:
            # Nothing is lost: the next batch, the sweep or the next start marks them.
            _log.warning("published facts could not be marked", error=repr(error))

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(self._sweep_seconds)
            self._reload_soon()

    async def _purge(self) -> None:
        while True:
            await self._clock.sleep(_PURGE_SECONDS)
            while await self._rows.purge():
                pass
