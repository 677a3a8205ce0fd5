"""Runs commands side by side and prints each one's output whole, with a verdict and its time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One command of the check."""

    name: str
    command: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    name: str
    passed: bool
    seconds: float
    output: str

    def line(self) -> str:
        verdict = "PASS" if self.passed else "FAIL"
        return f"{verdict}  {self.seconds:6.1f} s  {self.name}"


def run_step(step: Step) -> Outcome:
    """Run one command to its end; its two streams are kept together, in order."""
    began = time.monotonic()
    done = subprocess.run(
        step.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Outcome(step.name, done.returncode == 0, time.monotonic() - began, done.stdout.rstrip())


def run_all(steps: Sequence[Step], slots: int) -> list[Outcome]:
    """Run independent steps, at most ``slots`` at a time, and report each as it ends."""
    outcomes = []
    with ThreadPoolExecutor(slots) as pool:
        for future in as_completed([pool.submit(run_step, step) for step in steps]):
            outcome = future.result()
            report(outcome)
            outcomes.append(outcome)
    return outcomes


def report(outcome: Outcome) -> None:
    print(outcome.line(), flush=True)
    if outcome.output and not outcome.passed:
        print("".join(f"    {line}\n" for line in outcome.output.splitlines()), flush=True)
