"""The processes that `make up` keeps: the grid and one node daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_STOP_SECONDS = 20.0


class ChildFailed(Exception):
    """A child ended before it was ready, or could not be started. The text says why."""


class Child:
    """One child in its own process group, so that Ctrl-C reaches it in our order, not the
    terminal's. Its output goes to a log file; `ready` is a text that its output contains once it
    serves.
    """

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self._arguments = (sys.executable, "-m", *arguments)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._last: list[str] = []

    async def start(self, *, ready: str, seconds: float, environment: Mapping[str, str]) -> None:
        """Starts it and waits for `ready`. Raises ChildFailed with its last words."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(ready))
        await self._until_ready(seconds)

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when it has not ended in time."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def last_words(self) -> str:
        """Its last lines of output."""
        return "\n".join(self._last[-8:])

    async def _until_ready(self, seconds: float) -> None:
        assert self._process is not None
        ready = asyncio.create_task(self._ready.wait())
        ended = asyncio.create_task(self._process.wait())
        done, _ = await asyncio.wait(
            {ready, ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (ready, ended):
            task.cancel()
        if ready in done:
            return
        if ended in done and self._reader is not None:
            await self._reader
        why = "ended" if ended in done else f"was not ready within {seconds:.0f} s"
        await self.stop()
        raise ChildFailed(self.last_words() or f"The {self.name} {why}; see {self._log}")

    async def _read(self, ready: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._log.open("ab", buffering=0) as log:
            async for raw in self._process.stdout:
                log.write(raw)
                text = raw.decode("utf-8", "replace").rstrip()
                self._last = [*self._last[-19:], text]
                if ready in text:
                    self._ready.set()
