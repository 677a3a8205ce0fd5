"""Parts start in order, stop in reverse, and none dies unnoticed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from libs.clock import ManualClock
from libs.process import PartFailed, TaskPart, run
from libs.telemetry import metrics

ROOT = Path(__file__).resolve().parents[3]


class Recorder:
    def __init__(self, name: str, log: list[str], *, broken: bool = False) -> None:
        self.name, self.log, self.broken = name, log, broken

    async def start(self) -> None:
        self.log.append(f"+{self.name}")
        if self.broken:
            raise OSError(f"{self.name} is broken")

    async def stop(self) -> None:
        self.log.append(f"-{self.name}")


class Mortal(Recorder):
    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__(name, log)
        self.death = asyncio.Event()

    async def watch(self) -> None:
        await self.death.wait()
        raise RuntimeError("disk gone")


async def test_start_in_order_and_stop_in_reverse() -> None:
    log, stop = list[str](), asyncio.Event()
    parts = [Recorder("a", log), Recorder("b", log)]

    def ready() -> None:
        log.append("ready")
        stop.set()

    await run(parts, ready=ready, stop=stop)
    assert log == ["+a", "+b", "ready", "-b", "-a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops(number: signal.Signals) -> None:
    log = list[str]()
    await run([Recorder("a", log)], ready=lambda: os.kill(os.getpid(), number))
    assert log == ["+a", "-a"]


async def test_a_failing_start_stops_what_has_started_and_says_why() -> None:
    log = list[str]()
    parts = [Recorder("a", log), Recorder("b", log, broken=True), Recorder("c", log)]
    with pytest.raises(OSError, match="b is broken"):
        await run(parts, ready=lambda: log.append("ready"))
    assert log == ["+a", "+b", "-b", "-a"]


async def test_a_dying_part_stops_all() -> None:
    log = list[str]()
    mortal = Mortal("m", log)
    with pytest.raises(PartFailed, match=r"m died.*disk gone"):
        await run([Recorder("a", log), mortal], ready=mortal.death.set)
    assert log == ["+a", "+m", "-m", "-a"]


async def test_a_part_that_will_not_stop_does_not_hold_up_the_others() -> None:
    log, stop = list[str](), asyncio.Event()

    class Stuck(Recorder):
        async def stop(self) -> None:
            await asyncio.Event().wait()

    class Bad(Recorder):
        async def stop(self) -> None:
            raise ValueError

    class Cancelled(Recorder):
        async def stop(self) -> None:
            raise asyncio.CancelledError

    await run(
        [Recorder("a", log), Stuck("s", log), Bad("b", log), Cancelled("c", log)],
        ready=stop.set,
        stop=stop,
        stop_seconds=0.05,
    )
    assert log[-1] == "-a"


def test_a_second_signal_forces() -> None:
    program = """
import asyncio
from libs.process import run
class Stuck:
    async def start(self): pass
    async def stop(self):
        print("stopping", flush=True)
        await asyncio.Event().wait()
asyncio.run(run([Stuck()], ready=lambda: print("ready", flush=True), stop_seconds=60))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == b"stopping\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert time.monotonic() - begun < 5


async def test_a_crashing_task_is_restarted_with_growing_pauses() -> None:
    clock, runs = ManualClock(), list[float]()
    done = asyncio.Event()

    async def work() -> None:
        runs.append(clock.monotonic())
        if len(runs) < 4:
            raise RuntimeError("crash")
        done.set()

    before = metrics.value("grid_task_crashes_total", task="t")
    part = TaskPart("t", work, clock=clock, backoff_seconds=1, backoff_seconds_max=2)
    await part.start()
    while not done.is_set():
        await asyncio.sleep(0)
        if clock.sleepers:
            clock.advance(1)
    await part.stop()
    assert runs == [0, 1, 3, 5]
    assert metrics.value("grid_task_crashes_total", task="t") - before == 3


async def test_stopping_a_task_cancels_it_and_can_be_repeated() -> None:
    cancelled = asyncio.Event()
    running = asyncio.Event()

    async def work() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    part = TaskPart("t", work)
    await part.stop()
    await part.start()
    await running.wait()
    await part.stop()
    await part.stop()
    assert cancelled.is_set()


async def test_a_call_that_others_cancel_is_a_crash_and_not_the_end() -> None:
    runs: list[int] = []
    again = asyncio.Event()

    async def work() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise asyncio.CancelledError  # what gRPC raises from a call that it has cancelled
        again.set()
        await asyncio.Event().wait()

    part = TaskPart("t", work, backoff_seconds=0)
    await part.start()
    await asyncio.wait_for(again.wait(), 5)
    await part.stop()
    assert len(runs) == 2
