"""Processes that die anywhere on the way of a fact: every fact has its effect, and once."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.libs.crash_pipeline import KEYS

POINTS = [
    "bus.relay.after_publish_before_mark",
    "bus.consumer.after_effect_before_offset",
    "db.after_commit",
]


def run(home: Path, points: str, mode: str, kill_after: int | None = None) -> tuple[int, int]:
    """One life; returns the number of acknowledged writes and the exit status."""
    command = [sys.executable, "-m", "tests.unit.libs.crash_pipeline", str(home), points, mode]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None
        told = 0
        while child.stdout.readline():
            told += 1
            if told == kill_after:
                child.send_signal(signal.SIGKILL)
        return told, child.wait(timeout=40)


def assert_told_once(home: Path, acknowledged: int) -> None:
    sender, receiver = (sqlite3.connect(home / f"{name}.db") for name in ("sender", "receiver"))
    told = sender.execute("SELECT key, aggregate_seq FROM outbox").fetchall()
    heard = receiver.execute("SELECT job_id, attempt FROM seen ORDER BY place").fetchall()
    sender.close()
    receiver.close()
    assert len(told) >= acknowledged
    assert sorted(told) == sorted(heard)
    for key in range(KEYS):
        seqs = [seq for job, seq in heard if job == f"job_{key}"]
        assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_place(tmp_path: Path, point: str) -> None:
    acknowledged, status = run(tmp_path, f"{point}=kill:after=20", "send")
    assert status == -signal.SIGKILL
    assert run(tmp_path, "", "drain")[1] == 0
    assert_told_once(tmp_path, acknowledged)


def test_killed_again_and_again(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    acknowledged = 0
    for _ in range(4):
        told, status = run(tmp_path, "", "send", kill_after=chance.randrange(1, 300))
        assert status == -signal.SIGKILL, f"seed {seed}"
        acknowledged += told
    assert run(tmp_path, "", "drain")[1] == 0, f"seed {seed}"
    assert_told_once(tmp_path, acknowledged)
