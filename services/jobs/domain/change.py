"""One transition while it is being made: the job so far, what it says to people and to the bus."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from services.jobs.domain.activity import CATALOGUE
from services.jobs.domain.job import Activity, Attempt, Fact, Job
from services.jobs.domain.states import ATTEMPT_MOVES, MOVES, AttemptState, Status
from services.jobs.errors import IllegalMove


class Change:
    """Collects the effects of one transition. `told` are facts with their number in the job's
    history. Nothing is written here: the service does that, in one unit of work."""

    def __init__(self, job: Job, now: datetime, attempt: Attempt | None = None) -> None:
        self.before = job
        self.job = job
        # Facts carry the time at which they happened, by the clock of whoever tells them; a job's
        # history goes forward all the same.
        self.now = max(now, job.updated_time)
        self.attempt_before = attempt
        self.attempt = attempt
        self.activities: list[Activity] = []
        self.told: list[tuple[int, Fact]] = []

    @property
    def changed(self) -> bool:
        """The job's row must be written."""
        return self.job is not self.before

    @property
    def unseals(self) -> bool:
        """The encrypted environment is not needed any more."""
        return self.before.sealed and not self.job.sealed

    def set(self, **fields: Any) -> None:
        """Changes fields of the job. The first change copies it; the copy is this transition's own
        until it is done, so the further ones may write into it: copying thirty fields for each
        would be most of what a transition costs."""
        if self.job is self.before:
            self.job = replace(self.job)
        for name, value in fields.items():
            object.__setattr__(self.job, name, value)

    def move(self, status: Status) -> None:
        """To another status; raises IllegalMove when MOVES does not have it."""
        if status not in MOVES[self.job.status]:
            raise IllegalMove(f"a job cannot go from {self.job.status} to {status}")
        self.set(status=status, updated_time=self.now)

    def move_attempt(self, state: AttemptState) -> Attempt:
        """The attempt to another state; raises IllegalMove when ATTEMPT_MOVES does not have it."""
        if self.attempt is None:
            raise IllegalMove("there is no attempt to move")
        if state not in ATTEMPT_MOVES[self.attempt.state]:
            raise IllegalMove(f"an attempt cannot go from {self.attempt.state} to {state}")
        self.attempt = replace(self.attempt, state=state)
        return self.attempt

    def say(
        self,
        name: str,
        message: str = "",
        *,
        level: str = "",
        attempt: int = 0,
        time: datetime | None = None,
    ) -> None:
        """Adds an activity of now, or of `time`, and enters its phase when it has one."""
        template = CATALOGUE[name]
        job = self.job
        phase = template.phase or job.phase
        ordinal = job.counts.get(name, 0) + 1
        position = job.activities + 1
        self.activities.append(
            Activity(
                position=position,
                name=name,
                ordinal=ordinal,
                phase=phase,
                title=template.title,
                message=message or template.message,
                source=template.source,
                level=level or template.level,
                time=time or self.now,
                attempt=attempt,
            )
        )
        self.set(
            phase=phase,
            phase_time=job.phase_time if phase is job.phase else self.now,
            updated_time=self.now,
            counts={**job.counts, name: ordinal},
            activities=position,
        )

    def enter(self, name: str, message: str = "", level: str = "") -> None:
        """`say` for a phase of the attempt, once per attempt."""
        if self.attempt is None or name in self.attempt.phases:
            return
        self.attempt = replace(self.attempt, phases=(*self.attempt.phases, name))
        self.say(name, message, level=level, attempt=self.attempt.number)

    def tell(self, fact: Fact) -> None:
        """Adds a fact for the bus and gives it its number."""
        number = self.job.facts + 1
        self.set(facts=number)
        self.told.append((number, fact))
