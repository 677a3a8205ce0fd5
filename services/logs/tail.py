"""Live readers of logs: what was stored last, kept in memory for those who follow.

A hint, never the truth: a reader whose position is not covered by the memory reads the table. All
readers of a job share one list of entries, so a reader costs a position and a future, and a slow
one holds nothing back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from libs.clock import Clock
from services.logs.domain import Entry, JobLog


@dataclass(slots=True)
class _Channel:
    entries: deque[Entry]
    readers: int = 0
    version: int = 0
    head: JobLog | None = None
    waiting: set[asyncio.Future[None]] = field(default_factory=set)


class TailHub:
    """Fan-out within one process. `entries_max` bounds the memory of one followed job."""

    def __init__(self, entries_max: int, clock: Clock) -> None:
        self._entries_max = entries_max
        self._clock = clock
        self._channels: dict[str, _Channel] = {}

    @property
    def followed(self) -> int:
        """How many jobs have readers."""
        return len(self._channels)

    @contextmanager
    def follow(self, job_id: str) -> Iterator[None]:
        """Keeps the job's news in memory while the block runs."""
        channel = self._channels.setdefault(job_id, _Channel(deque(maxlen=self._entries_max)))
        channel.readers += 1
        try:
            yield
        finally:
            channel.readers -= 1
            if channel.readers == 0:
                del self._channels[job_id]

    def publish(self, head: JobLog, entries: Sequence[Entry] = ()) -> None:
        """Tells the readers of a job what was committed. Costs nothing when there are none."""
        channel = self._channels.get(head.job_id)
        if channel is None:
            return
        if channel.head is None or head.version > channel.head.version:
            channel.head = head
        channel.entries.extend(entries)
        channel.version += 1
        waiting, channel.waiting = channel.waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def mark(self, job_id: str) -> int:
        """A position in the job's news, to be taken before reading and given to `changed`."""
        return self._channels[job_id].version

    def after(self, job_id: str, cursor: int) -> tuple[JobLog, list[Entry]] | None:
        """The head and all entries after `cursor`, or None when memory does not reach back."""
        channel = self._channels[job_id]
        head, entries = channel.head, channel.entries
        if head is None:
            return None
        if cursor >= head.last_entry_id:
            return head, []
        if not entries or entries[0].entry_id > cursor + 1 or not _whole(entries, head):
            return None
        return head, [entry for entry in entries if entry.entry_id > cursor]

    async def changed(self, job_id: str, mark: int, timeout_seconds: float) -> bool:
        """Waits for news after `mark`; False when the time passed without any."""
        channel = self._channels[job_id]
        if channel.version != mark:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        channel.waiting.add(future)
        timer = asyncio.ensure_future(self._clock.sleep(timeout_seconds))
        try:
            await asyncio.wait({future, timer}, return_when=asyncio.FIRST_COMPLETED)
            return future.done()
        finally:
            timer.cancel()
            channel.waiting.discard(future)


def _whole(entries: deque[Entry], head: JobLog) -> bool:
    """Commits of one job may be told out of order; a list with a hole is not to be used."""
    span = entries[-1].entry_id - entries[0].entry_id + 1
    return span == len(entries) and entries[-1].entry_id == head.last_entry_id
