"""The bus itself: publishes, hands over, remembers places, forgets the old."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from libs.bus.embedded import tables
from libs.bus.embedded.group import Group
from libs.bus.port import Record, Subscription
from libs.clock import Clock
from libs.db import Tx
from libs.db.sqlite import SqliteDatabase
from libs.process.task import TaskPart
from libs.telemetry import logger, metrics

_log = logger("bus")
_published = metrics.counter("grid_bus_published_total", "Records appended.", ("topic",))
_RETENTION = timedelta(days=7)
_SWEEP_SECONDS = 3_600.0
_PAGE = 1_024
# Places are written with the next publish, or at the latest after this long.
_PLACES_SECONDS = 0.1


class EmbeddedBus:
    """See Bus. Records are in the page cache when `publish` returns and on the disk when `sync`
    returns; a group's places are written a moment after `commit`."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._database = SqliteDatabase(
            path,
            metadata=tables.METADATA,
            migrations=Path(__file__).parent / "migrations",
            clock=clock,
            service="bus",
            durable=False,
        )
        self._clock = clock
        self._identity = ""
        self._end = 0
        self._next = 1
        self._places: dict[tuple[str, str], int] = {}
        self._groups: dict[str, Group] = {}
        self._moved: dict[str, Group] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._writing: asyncio.Task[None] | None = None
        self._sweeper = TaskPart("bus-retention", self._sweep, clock=clock)
        self._paused = False
        self._running = False

    async def start(self) -> None:
        await self._database.start()
        self._identity, kept_end = await self._database.read(
            lambda tx: tx.execute(tables.SELECT_BUS).one()
        )
        last = await self._database.read(lambda tx: tx.execute(tables.LAST).scalar_one())
        self._end = max(last, kept_end)
        self._next = self._end + 1
        rows = await self._database.read(lambda tx: tx.execute(tables.PLACES).all())
        self._places = {(group, topic): offset for group, topic, offset in rows}
        await self._sweeper.start()
        self._running = True

    async def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        await self._sweeper.stop()
        for group in self._groups.values():
            group.end()
        tasks = [*self._tasks.values(), *([self._writing] if self._writing else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._write_places()
        self._groups.clear()
        await self._database.stop()

    def identity(self) -> str:
        return self._identity

    async def publish(self, records: Sequence[Record]) -> None:
        if records:
            await self._database.write(lambda tx: self._append(tx, records))

    async def sync(self) -> None:
        await self._database.sync()

    def subscribe(self, group: str, topics: Sequence[str]) -> Subscription:
        found = self._groups.get(group)
        if found is None:
            places = {topic: self._places.get((group, topic), 0) for topic in topics}
            found = self._groups[group] = Group(group, topics, places, self._on_moved)
            found.paused = self._paused
        elif found.topics != frozenset(topics):
            raise ValueError(f"group {group} reads {sorted(found.topics)}, not {sorted(topics)}")
        member = found.join()
        self._catch_up(found)
        return member

    def pause(self) -> None:
        """Stops all delivery, so that a test sees the grid between a fact and its effects."""
        self._pause(True)

    def resume(self) -> None:
        """Undoes `pause`."""
        self._pause(False)

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        for group in self._groups.values():
            group.paused = paused
            group.wake()

    def _append(self, tx: Tx, records: Sequence[Record]) -> None:
        # Offsets of a commit that failed are never used again: a gap harms nobody.
        first, self._next = self._next, self._next + len(records)
        placed = [
            Record(r.topic, r.key, r.event_id, r.payload, r.headers, offset)
            for offset, r in enumerate(records, start=first)
        ]
        now = tx.now()
        tx.execute_bulk(
            tables.APPEND,
            [
                (r.offset, r.topic, r.key, r.event_id, r.payload, dict(r.headers), now)
                for r in placed
            ],
        )
        self._put_places(tx)
        tx.after_commit(lambda: self._hand_over(placed))

    def _hand_over(self, placed: Sequence[Record]) -> None:
        """Runs after the commit, in commit order."""
        before, self._end = self._end, placed[-1].offset
        for record in placed:
            _published.labels(record.topic).inc()
        for group in self._groups.values():
            if group.position == before and group.room() >= len(placed):
                group.hand_out(placed, self._end)
            else:
                self._catch_up(group)

    def _catch_up(self, group: Group) -> None:
        if group.name not in self._tasks and self._behind(group):
            task = asyncio.create_task(self._fill(group), name=f"bus-fill-{group.name}")
            self._tasks[group.name] = task
            task.add_done_callback(lambda done: self._filled(group, done))

    def _behind(self, group: Group) -> bool:
        return group.position < self._end and group.room() > 0

    async def _fill(self, group: Group) -> None:
        while self._behind(group):
            end, size = self._end, min(_PAGE, group.room())
            page = {
                "after": group.position,
                "upto": end,
                "topics": list(group.topics),
                "page_size": size,
            }
            rows = await self._database.read(
                lambda tx, page=page: tx.execute(tables.PAGE, page).all()  # type: ignore[misc]
            )
            if group.position != page["after"] or not group.room():
                continue  # the last member has left meanwhile
            records = [Record(*row) for row in rows]
            group.hand_out(records, records[-1].offset if len(records) == size else end)

    def _filled(self, group: Group, task: asyncio.Task[None]) -> None:
        self._tasks.pop(group.name, None)
        if task.cancelled():
            return
        if task.exception() is not None:
            _log.error("reading the log failed", group=group.name, error=repr(task.exception()))
            asyncio.get_running_loop().call_later(1.0, self._catch_up, group)
        else:
            self._catch_up(group)

    def _on_moved(self, group: Group) -> None:
        self._moved[group.name] = group
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_PLACES_SECONDS, self._places_due)
        self._catch_up(group)

    def _places_due(self) -> None:
        self._timer = None
        if self._moved and self._running:
            self._writing = asyncio.create_task(self._write_places())
            self._writing.add_done_callback(self._places_written)

    def _places_written(self, task: asyncio.Task[None]) -> None:
        self._writing = None
        if not task.cancelled() and task.exception() is not None:
            # They are still in `_moved`: the next commit or publish writes them.
            _log.warning("writing places failed", error=repr(task.exception()))

    async def _write_places(self) -> None:
        if self._moved:
            await self._database.write(self._put_places)

    def _put_places(self, tx: Tx) -> None:
        if not self._moved:
            return
        moved = {name: group.places() for name, group in self._moved.items()}
        rows = [
            (name, topic, offset)
            for name, places in moved.items()
            for topic, offset in places.items()
            if self._places.get((name, topic)) != offset
        ]
        tx.execute_bulk(tables.PUT_PLACE, rows)
        tx.after_commit(lambda: self._places_kept(moved))

    def _places_kept(self, moved: dict[str, dict[str, int]]) -> None:
        for name, places in moved.items():
            self._places.update({(name, topic): offset for topic, offset in places.items()})
            group = self._moved.get(name)
            if group is not None and group.places() == places:
                del self._moved[name]

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(_SWEEP_SECONDS)
            await self._database.write(self._forget_old, long=True)

    def _forget_old(self, tx: Tx) -> None:
        since = {"since": tx.now() - _RETENTION}
        oldest = tx.execute(tables.OLDEST_KEPT, since).scalar_one_or_none()
        tx.execute(tables.SET_END, {"end": self._end})
        tx.execute(tables.DROP_BEFORE, {"first": self._end + 1 if oldest is None else oldest})
