"""Settings of scheduling, from section [scheduling]."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SchedulingConfig:
    """Limits and intervals; units are in the names."""

    # Placements in one commit. A commit of 64 takes about 5 ms of the loop.
    placements_per_commit_max: int = 64
    # Facts are gathered for this long under load; one that comes alone is not delayed.
    consumer_pace_seconds: float = 0.005
    # Lost hints are looked for, and waiting entries are aged, this often.
    sweep_seconds: float = 10.0
    # An entry that has waited this long and could fit gets nodes kept free for it.
    aging_seconds: float = 120.0
    # Nodes are kept free for at most this many entries at a time.
    aged_entries_max: int = 8
    # A node on which an attempt failed by no fault of the job is chosen last for this long, so that
    # a broken node, which is always free, does not draw all work to it.
    suspect_seconds: float = 60.0
    # Rows of jobs that are over are kept this long, so that a late fact cannot queue them again.
    ended_kept_seconds: float = 7 * 86_400.0
    # Length of a run while nothing is known, for the estimate of a wait.
    run_seconds_assumed: float = 300.0
    # Time from placement to start that an estimate always counts with.
    dispatch_seconds: float = 5.0
    # How far above the likely price a hold is computed, so that a second choice may be taken.
    ceiling_factor_cost: float = 1.2
    ceiling_factor_balanced: float = 1.5
    ceiling_factor_speed: float = 3.0

    def __post_init__(self) -> None:
        if self.sweep_seconds < 5:
            raise ValueError("sweep_seconds must be at least 5: wakes are for what is urgent")
        if self.placements_per_commit_max < 1:
            raise ValueError("placements_per_commit_max must be at least 1")
        if (
            min(self.ceiling_factor_cost, self.ceiling_factor_balanced, self.ceiling_factor_speed)
            < 1
        ):
            raise ValueError("ceiling factors must be at least 1")
