"""Lets other threads have the interpreter while the event loop is busy.

CPython hands the interpreter lock over only to a thread that has waited for it undisturbed for the
switch interval (5 ms). A busy loop releases the lock at every poll and takes it back within
microseconds, which restarts that wait each time: a thread that returns from a commit was seen to
starve for seconds. So when a thread of ours has been at work for a millisecond and the loop has had
no idle moment, the loop sleeps for some microseconds once a turn. An idle loop is left alone, and a
commit that is quick costs a timer.
"""

from __future__ import annotations

import asyncio
import time
from weakref import WeakKeyDictionary, proxy

_BUSY_SECONDS = 0.0001
_YIELD_SECONDS = 0.00001
_LOOK_AFTER_SECONDS = 0.001


class Handover:
    """Counts the threads that this loop waits for, and yields to them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Weak, or the registry below would keep every loop of a test run alive.
        self._loop: asyncio.AbstractEventLoop = proxy(loop)
        self._waiting = 0
        self._armed = False
        self._turn_began = 0.0

    def enter(self) -> None:
        """A thread has been given work."""
        self._waiting += 1
        if not self._armed:
            self._armed = True
            self._loop.call_later(_LOOK_AFTER_SECONDS, self._look)

    def leave(self) -> None:
        """Its answer has arrived."""
        self._waiting -= 1

    def _measure(self) -> None:
        self._turn_began = time.perf_counter()
        self._loop.call_soon(self._turned)

    def _turned(self) -> None:
        if not self._waiting:
            self._armed = False
        elif time.perf_counter() - self._turn_began > _BUSY_SECONDS:
            time.sleep(_YIELD_SECONDS)
            self._measure()
        else:
            self._loop.call_later(_LOOK_AFTER_SECONDS, self._look)

    def _look(self) -> None:
        if self._waiting:
            self._measure()
        else:
            self._armed = False


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Handover] = WeakKeyDictionary()


def handover(loop: asyncio.AbstractEventLoop) -> Handover:
    """The one Handover of `loop`, so that many databases cost one yield a turn."""
    return _by_loop.setdefault(loop, Handover(loop))
