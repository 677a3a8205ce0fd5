"""The one thread of a database that waits for the disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from libs.db.handover import handover

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a function on the thread returned, or what it raised."""

    value: T | None
    error: BaseException | None


class Committer:
    """Runs functions one after the other on a thread and reports each to the event loop."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handover = handover(loop)
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon: a process that is told to end at once does not wait for the disk.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[Answer[T]], None]) -> None:
        """Calls `done` on the loop with what `work` gave on the thread."""

        def run() -> None:
            try:
                answer = Answer(work(), None)
            except BaseException as error:
                answer = Answer(None, error)
            self._report(lambda: self._finish(answer, done))

        self._handover.enter()
        self._work.put(run)

    def close(self) -> None:
        """Ends the thread after what was submitted."""
        self._work.put(None)
        self._thread.join()

    def _finish(self, answer: Answer[T], done: Callable[[Answer[T]], None]) -> None:
        self._handover.leave()
        done(answer)

    def _report(self, callback: Callable[[], None]) -> None:
        # A loop that was closed under us has nobody left who waits for the answer.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
