"""Failpoints do nothing unarmed, and exactly what they say when armed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs import failpoints
from libs.failpoints import FailpointError, FailpointSpecError

ROOT = Path(__file__).resolve().parents[3]
POINT = failpoints.register("test.point", "in the test")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()
    assert failpoints.REGISTER["test.point"] == "in the test"


def test_unarmed_is_a_no_op() -> None:
    failpoints.arm("other=error")
    POINT.hit()


def test_error_after_n_hits() -> None:
    failpoints.arm("test.point=error:after=2,other=kill")
    POINT.hit()
    failpoints.hit("test.point")
    with pytest.raises(FailpointError, match=r"test\.point"):
        POINT.hit()


async def test_a_delay_leaves_the_loop_free() -> None:
    failpoints.arm("test.point=delay:50")
    waiting = asyncio.create_task(POINT.hit_async())
    await asyncio.sleep(0)
    assert not waiting.done()
    await waiting
    await failpoints.hit_async("unarmed")


@pytest.mark.parametrize(
    "spec", ["x", "x=", "x=boom", "=kill", "x=stop", "x=delay:soon", "x=error:before=1", "x=kill:1"]
)
def test_a_spec_outside_the_grammar_is_refused_and_changes_nothing(spec: str) -> None:
    failpoints.arm("test.point=error")
    with pytest.raises(FailpointSpecError):
        failpoints.arm(spec)
    with pytest.raises(FailpointError):
        POINT.hit()


def test_one_name_has_one_place() -> None:
    assert failpoints.register("test.point", "in the test") == POINT
    with pytest.raises(ValueError, match="twice"):
        failpoints.register("test.point", "elsewhere")


def child(spec: str) -> subprocess.Popen[bytes]:
    program = (
        "from libs import failpoints as f\n"
        "p = f.register('a.b', 'here')\n"
        f"f.arm({spec!r})\n"
        "p.hit()\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)


def test_kill_kills() -> None:
    assert child("a.b=kill").wait(20) == -signal.SIGKILL


def test_stop_stops_and_goes_on_by_itself() -> None:
    process = child("a.b=stop:0.3")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    begun = time.monotonic()
    assert os.WIFSTOPPED(status)
    assert process.wait(20) == 0
    assert time.monotonic() - begun > 0.1
