"""The reference: what the ledger must say, in the plainest words. No rows, no order, no retries."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Job:
    """Holds by (attempt, period): amount and `held`, `settled` or `released`."""

    holds: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)
    charged: int = 0
    known: bool = False
    queued: bool = False
    claimed: int = 0
    closed: int = 0
    unjudged: dict[int, int | None] = field(default_factory=dict)
    heard: set[int] = field(default_factory=set)
    awaited: int | None = None

    def held(self) -> int:
        return sum(amount for amount, status in self.holds.values() if status == "held")

    def resolve(self, cost: int) -> None:
        for key in sorted(self.holds):
            amount, status = self.holds[key]
            if status == "held":
                part = min(cost, amount)
                cost -= part
                self.charged += part
                self.holds[key] = (amount, "settled" if part else "released")

    def judge(self) -> None:
        """After every fact: closes heard while the job was unknown wait; cost None is our fault."""
        for attempt in sorted(self.unjudged) if self.queued else ():
            cost = self.unjudged.pop(attempt)
            self.closed = max(self.closed, attempt)
            if cost is not None:
                self.resolve(cost)
        over = self.awaited is not None and self.closed >= self.awaited
        if over and self.claimed <= self.closed:
            self.resolve(0)


@dataclass
class Model:
    """One workspace."""

    credited: int = 0
    references: set[str] = field(default_factory=set)
    jobs: dict[str, Job] = field(default_factory=dict)

    def totals(self) -> tuple[int, int, int]:
        """Available, held, spent."""
        held = sum(job.held() for job in self.jobs.values())
        spent = sum(job.charged for job in self.jobs.values())
        return self.credited - held - spent, held, spent
