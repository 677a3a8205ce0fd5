"""Reads: short ones on the loop, slow ones on threads.

A point read takes 20 microseconds; handing it to a thread and back costs more than that. So a read
begins on the loop, and when it is not done after `INLINE_SECONDS` SQLite interrupts it, it is run
again on a thread, and its function goes straight to a thread from then on.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from libs.clock import Clock
from libs.db.files import Opened, SqliteFile
from libs.db.group import check_value
from libs.db.handover import handover
from libs.db.tx import Tx

T = TypeVar("T")
INLINE_SECONDS = 0.002
_THREADS = 2
# Virtual machine steps between two looks at the time: some tens of microseconds' worth.
_STEPS_BETWEEN_LOOKS = 2_000


class _Interrupted(Exception):
    """The read took too long for the loop."""


class Readers:
    """The reading connections of one database."""

    def __init__(self, file: SqliteFile, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._file = file
        self._clock = clock
        self._loop = loop
        self._handover = handover(loop)
        self._inline = file.open_reader()
        self._slow: set[object] = set()
        self._local = threading.local()
        self._opening = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS, "db-read")

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Runs `work` on a snapshot."""
        kind = getattr(work, "__code__", work)
        if kind not in self._slow:
            try:
                return self._read_inline(work)
            except _Interrupted:
                self._slow.add(kind)
        self._handover.enter()
        try:
            context = contextvars.copy_context()
            return await self._loop.run_in_executor(
                self._pool, context.run, self._read_on_thread, work
            )
        finally:
            self._handover.leave()

    async def close(self) -> None:
        """Waits for the reads that are under way."""
        await asyncio.to_thread(self._pool.shutdown)

    def _read_inline(self, work: Callable[[Tx], T]) -> T:
        raw = self._inline.raw
        stop = time.perf_counter() + INLINE_SECONDS
        interrupted = False

        def look() -> int:
            nonlocal interrupted
            interrupted = interrupted or time.perf_counter() > stop
            return interrupted

        raw.set_progress_handler(look, _STEPS_BETWEEN_LOOKS)
        try:
            value = self._snapshot(self._inline, work)
        except Exception:
            if interrupted:
                raise _Interrupted from None
            raise
        finally:
            raw.set_progress_handler(None, 0)
        return value

    def _read_on_thread(self, work: Callable[[Tx], T]) -> T:
        mine: Opened | None = getattr(self._local, "connection", None)
        if mine is None:
            with self._opening:
                mine = self._local.connection = self._file.open_reader()
        return self._snapshot(mine, work)

    def _snapshot(self, on: Opened, work: Callable[[Tx], T]) -> T:
        raw = on.raw
        tx = Tx(on.connection, on.prepared, self._clock, None)
        raw.execute("BEGIN")
        try:
            value = work(tx)
            check_value(value)
        finally:
            tx.close()
            if raw.in_transaction:
                raw.execute("ROLLBACK")
        return value
