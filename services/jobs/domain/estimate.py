"""How long a job of some kind usually runs. There is no history of like jobs to learn from yet, so
these are ranges by kind of work, and the confidence that is shown with them is low."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_SECONDS = 60
RANGE_CONFIDENCE = 0.3
_MINUTES = {"inference": (5, 15), "batch": (5, 30), "fine-tuning": (30, 120), "training": (60, 240)}


@dataclass(frozen=True, slots=True)
class RunTime:
    """Least, likely and most seconds."""

    least: float
    likely: float
    most: float


def run_time(workload_type: str, timeout_seconds: int) -> RunTime:
    """The range for this kind of work, cut at the timeout."""
    low, high = _MINUTES[workload_type]
    least = min(low * MINUTE_SECONDS, timeout_seconds)
    most = min(high * MINUTE_SECONDS, timeout_seconds)
    return RunTime(least, (least + most) / 2, most)
