"""The daemon's view of an attempt, without a shim."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

from services.node_daemon import attempt_files
from services.node_daemon.collect import CollectLimits
from services.node_daemon.runtime.attempt import Places, Record, ShimAttempt
from services.node_daemon.runtime.port import ExitReason


async def _forget(_: Record) -> None: ...


async def test_a_renewal_that_comes_with_the_exit_arms_nothing(tmp_path: Path) -> None:
    """Shims serve one job after the other. A renewal may come after the exit was heard and before
    the lease's task has taken it in; its timer would kill the shim in the middle of a later job."""
    record = Record("l", "job", 1, 0, "sandbox", 0, 0, {"kind": "none", "folders": {}})
    attempt = ShimAttempt(Places(cast(Any, None), 10.0, CollectLimits()), record, tmp_path, _forget)
    attempt.renew(time.monotonic() + 30)
    before = attempt._backstop
    assert before is not None and not before.cancelled()
    attempt_files.write_json(tmp_path / attempt_files.EXIT, {"reason": "exited", "code": 0})
    attempt._settle()
    attempt.renew(time.monotonic() + 30)
    assert (await attempt.wait()).reason is ExitReason.EXITED
    assert attempt._backstop is before and before.cancelled()


async def test_a_lost_attempt_is_told_only_when_its_container_is_gone(tmp_path: Path) -> None:
    ended_before: list[bool] = []

    async def forget(_: Record) -> None:
        ended_before.append(attempt._exit.done())
        raise OSError("the engine is away")

    record = Record("l", "job", 1, 0, "docker", 0, 0, {"kind": "none", "folders": {}}, "c1")
    attempt = ShimAttempt(Places(cast(Any, None), 10.0, CollectLimits()), record, tmp_path, forget)
    attempt_files.write_cell(tmp_path / attempt_files.DEADLINE, time.monotonic_ns() + 10**10)
    await attempt.take_over()  # nobody holds the lock, and there is no exit
    assert ended_before == [False]
    assert (await attempt.wait()).reason is ExitReason.RUNTIME_LOST
