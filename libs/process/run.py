"""The life of a process: start in order, serve, stop in reverse."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence

from libs.process.module import Part, Watched
from libs.telemetry import logger

_log = logger("process")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FORCED = 130


class PartFailed(Exception):
    """A part died while the process was serving; the cause is chained."""


async def run(
    parts: Sequence[Part],
    *,
    ready: Callable[[], None],
    stop_seconds: float = 5.0,
    stop: asyncio.Event | None = None,
) -> None:
    """Starts `parts` in order, calls `ready`, and serves until SIGINT or SIGTERM; or, when the
    caller gives `stop` and so keeps the signals to itself, until that is set.

    Then stops them in reverse, each within `stop_seconds`. A failing start stops what has started
    and raises its error; a part that dies while serving stops everything and raises PartFailed. A
    second signal ends the process at once.
    """
    ending = stop or asyncio.Event()
    if stop is None:
        _listen(ending)
    started: list[Part] = []
    try:
        for part in parts:
            started.append(part)
            _log.debug("starting", part=_name(part))
            await part.start()
            if ending.is_set():
                return
        ready()
        await _serve(started, ending)
    finally:
        await _stop_all(started, stop_seconds)
        if stop is None:
            _ignore()


def _listen(ending: asyncio.Event) -> None:
    def on_signal(number: int) -> None:
        if ending.is_set():
            os._exit(_FORCED)
        _log.info("stopping", signal=signal.Signals(number).name)
        ending.set()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)


def _ignore() -> None:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.remove_signal_handler(number)


async def _serve(parts: Sequence[Part], ending: asyncio.Event) -> None:
    watches = {
        asyncio.create_task(part.watch()): part for part in parts if isinstance(part, Watched)
    }
    end: asyncio.Task[None] = asyncio.create_task(_until(ending))
    try:
        done, _ = await asyncio.wait([end, *watches], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {end}:
            name, cause = _name(watches[task]), task.exception()
            _log.error("part died, stopping", part=name, error=repr(cause))
            raise PartFailed(f"{name} died: {cause!r}") from cause
    finally:
        for task in (end, *watches):
            task.cancel()
        await asyncio.wait([end, *watches])


async def _stop_all(parts: Sequence[Part], seconds: float) -> None:
    for part in reversed(parts):
        try:
            async with asyncio.timeout(seconds):
                await part.stop()
        except TimeoutError:
            _log.warning("part did not stop in time", part=_name(part), seconds=seconds)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Something inside the part was cancelled, not we: the other parts still need stopping.
            _log.warning("part was cancelled while stopping", part=_name(part))
        except Exception:
            _log.exception("part failed to stop", part=_name(part))


async def _until(ending: asyncio.Event) -> None:
    await ending.wait()


def _name(part: Part) -> str:
    return str(getattr(part, "name", type(part).__name__))
