"""What reads answer, before it becomes a message."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.jobs.domain.job import Activity, Attempt, Job


@dataclass(frozen=True, slots=True)
class LogTails:
    """Last lines of a job's output."""

    stdout: str = ""
    stderr: str = ""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    gap: bool = False
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Detail:
    """A job as it is shown. `excerpt` are the last lines of stderr of a failed job."""

    job: Job
    now: datetime
    delayed: bool
    attempts: tuple[Attempt, ...] = ()
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs, newest first. `next_cursor` is None on the last page."""

    jobs: tuple[Detail, ...]
    limit: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Runtime:
    """What ran. `tails` is None when logs could not be asked."""

    job: Job
    attempt: Attempt | None
    tails: LogTails | None


@dataclass(frozen=True, slots=True)
class Events:
    """Lifecycle events in order, as of `now`."""

    job: Job
    items: tuple[Activity, ...]
    now: datetime
