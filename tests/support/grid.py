"""A whole grid for a test: in this process, or as a child that can be killed and started again.

async with grid_here() as grid:                  # this loop, real sockets, real stores
    channel = grid.context("gateway").peers("jobs")
    ... grid.url, grid.home

async with grid_child(failpoint="jobs.after_commit=kill") as grid:
    await grid.process.wait()
    await grid.start(failpoint=None)
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from deploy import run as root
from deploy.context import for_service
from deploy.home import prepare
from deploy.settings import EMBEDDED, Settings, read
from libs.process import Context, run

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 30.0
STOP_SECONDS = 15.0


def free_port() -> int:
    """A TCP port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder with a short path: those of unix sockets end at 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="jg", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class GridHere:
    """A grid in this process and loop. `context(service)` is what that service was given."""

    def __init__(self, settings: Settings, modules: root.Modules = root.MODULES) -> None:
        self._modules = modules
        self.settings = settings
        self.home = settings.home
        self.url = settings.url
        self.node_address = settings.listeners.node
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.shared: Context | None = None

    def context(self, service: str) -> Context:
        """The running grid's own context, as seen by `service`: same bus, wake, objects, peers."""
        assert self.shared is not None, "the grid is not running"
        return for_service(self.shared, service)

    async def start(self, names: Sequence[str]) -> None:
        """Returns when it serves; raises what made it fail."""
        self._task = asyncio.create_task(self._run(names))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait(
            [self._task, ready], timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        ready.cancel()
        if self._task.done():
            self._task.result()
        assert self._ready.is_set(), f"not ready within {READY_SECONDS:.0f} s"

    async def stop(self) -> None:
        """Stops it as a signal would; raises if a part had died."""
        self._stop.set()
        if self._task is not None:
            await self._task

    async def _run(self, names: Sequence[str]) -> None:
        self.shared, parts = root.assemble(self.settings, names, self._modules)
        await run(parts, ready=self._ready.set, stop=self._stop)


@asynccontextmanager
async def grid_here(
    overrides: Mapping[str, str] | None = None,
    *,
    names: Sequence[str] | None = None,
    modules: root.Modules = root.MODULES,
    config: Path = EMBEDDED,
) -> AsyncIterator[GridHere]:
    """A running grid of modules `names`, by default all. `overrides`: {"GRID_JOBS__X": "1"}."""
    with short_folder() as folder:
        settings = read(config, prepare(folder / "g"), free_port(), overrides or {})
        grid = GridHere(settings, modules)
        await grid.start(names or list(modules))
        try:
            yield grid
        finally:
            await grid.stop()


class GridChild:
    """A grid in a process of its own, with a home that outlives it."""

    def __init__(self, home: Path, port: int, overrides: Mapping[str, str], target: str) -> None:
        self.home = home
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.node_address = f"unix:{home}/node.sock"
        self.log = home.parent / "grid.log"
        self._overrides = overrides
        self._target = target
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The child; raises if it was never started."""
        assert self._process is not None
        return self._process

    async def start(self, *, failpoint: str | None = None) -> None:
        """Starts it on the same home and port; returns when it serves."""
        environment = {**os.environ, **self._overrides, "GRID_FAILPOINT": failpoint or ""}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "deploy.run", self._target),
                *("--home", str(self.home), "--port", str(self.port)),
                cwd=ROOT,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            line = await self._process.stdout.readline()
        if not line.startswith(b"ready "):
            await self._process.wait()
            raise AssertionError(f"the grid did not start:\n{self.log.read_text()[-3000:]}")

    async def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM, and the exit code; SIGKILL and a failure if it does not end."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self.process.wait()
            except TimeoutError:
                await self.kill()
                raise AssertionError("the grid did not stop") from None
        assert self.process.returncode is not None
        return self.process.returncode

    def settings(self) -> Settings:
        """What the child was configured with."""
        return read(EMBEDDED, self.home, self.port, self._overrides)


@asynccontextmanager
async def grid_child(
    overrides: Mapping[str, str] | None = None,
    *,
    failpoint: str | None = None,
    target: str = "all",
) -> AsyncIterator[GridChild]:
    """A running child grid; killed at the end if the test left it running."""
    with short_folder() as folder:
        grid = GridChild(folder / "g", free_port(), overrides or {}, target)
        await grid.start(failpoint=failpoint)
        try:
            yield grid
        finally:
            await grid.kill()
