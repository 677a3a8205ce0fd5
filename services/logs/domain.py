"""The log of a job as a value: which lines are accepted, in which order, and when it is whole.

An attempt writes numbered lines (1, 2, 3 ... per task and stream). The log accepts each number
once and in order, gives it the job's next `entry_id`, and is closed when its job is final and
nothing more can come. An older attempt may not write once a newer one has (invariant I5), and a
sealed attempt may not write at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

FINAL = frozenset({"completed", "failed", "rejected", "cancelled"})
_RANK = {"pending": 0, "queued": 1, "assigned": 2, "running": 3}


class Stream(StrEnum):
    """Where a line came from; SYSTEM lines are written by the grid and by daemons."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SYSTEM = "system"


class Refusal(StrEnum):
    """Why lines of a lease are refused; a node does not send them again."""

    SEALED = "SEALED"
    STALE_ATTEMPT = "STALE_ATTEMPT"
    LOG_LIMIT = "LOG_LIMIT"


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or part of a long one. `node_time_micros` is the node's clock, for display."""

    stream: Stream
    seq: int
    text: str
    partial: bool = False
    node_time_micros: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored line. `entry_id` rises by one from 1 within its job."""

    entry_id: int
    attempt: int
    line: Line
    received_time: datetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far one stream of one task has come: its last stored number and, once known, its end."""

    last: int = 0
    end: int | None = None

    @property
    def complete(self) -> bool:
        """Nothing more comes in this stream."""
        return self.end is not None and self.last >= self.end


@dataclass(frozen=True, slots=True)
class Batch:
    """What a node sends for one task of one attempt. `gap` gives up what is still missing."""

    attempt: int
    task_index: int
    lines: Sequence[Line] = ()
    ends: Mapping[Stream, int] = field(default_factory=dict)
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a batch: the lines to store, and where each stream now stands."""

    lines: Sequence[Line]
    durable: Mapping[Stream, int]
    complete: bool
    refused: Refusal | None = None


@dataclass(frozen=True, slots=True)
class JobLog:
    """The head of a job's log. `cursors` belong to `attempt`, the newest that has written."""

    workspace_id: str
    job_id: str
    status: str = "queued"
    exit_code: int | None = None
    status_attempt: int = 0
    attempt: int = 0
    sealed_attempt: int = 0
    lease_open: bool = False
    cursors: Mapping[str, Cursor] = field(default_factory=dict)
    next_entry_id: int = 1
    size_bytes: int = 0
    truncated: bool = False
    gap: bool = False
    version: int = 0

    @property
    def last_entry_id(self) -> int:
        """The newest entry; 0 when there is none."""
        return self.next_entry_id - 1

    @property
    def closed(self) -> bool:
        """The job is final and no line can come any more."""
        return self.status in FINAL and not self.lease_open

    @property
    def complete(self) -> bool:
        """Every stream of the newest attempt has been stored to its end."""
        return bool(self.cursors) and all(cursor.complete for cursor in self.cursors.values())

    def accept(self, batch: Batch, *, bytes_max: int) -> tuple[JobLog, Accepted]:
        """The log after `batch`, and what to store of it. Repeated lines vanish; a line that
        would leave a hole ends the batch, and `durable` tells the node where to go on."""
        refused = self._refusal(batch)
        if refused is not None:
            return self, Accepted((), {}, complete=False, refused=refused)
        log = self if batch.attempt == self.attempt else self._begin(batch.attempt)
        cursors = {stream: log.cursor(batch.task_index, stream) for stream in Stream}
        lines, cursors = _contiguous(batch.lines, cursors)
        cursors = _ended(cursors, batch)
        log, lines = log._within(lines, bytes_max)
        log = log._advance(batch, cursors, len(lines))
        durable = {stream: cursor.last for stream, cursor in cursors.items()}
        whole = cursors[Stream.STDOUT].complete and cursors[Stream.STDERR].complete
        return log, Accepted(lines, durable, complete=whole)

    def cursor(self, task_index: int, stream: Stream) -> Cursor:
        """Where `stream` of `task_index` stands in the newest attempt."""
        return self.cursors.get(f"{task_index}/{stream}", Cursor())

    def observe(self, attempt: int, status: str) -> JobLog:
        """The log after a fact about its job; facts may come late, twice or out of order."""
        if self.status in FINAL:
            return self
        older = (attempt, _RANK[status]) <= (self.status_attempt, _RANK.get(self.status, 0))
        if older and self.version:
            return self
        return replace(self, status=status, status_attempt=attempt)

    def finish(self, status: str, exit_code: int | None, *, lease_open: bool) -> JobLog:
        """The log after its job became final. An attempt still being torn down may yet write,
        until its lease closes."""
        if self.status in FINAL:
            return self
        still = lease_open and self.sealed_attempt < max(self.attempt, self.status_attempt, 1)
        return replace(self, status=status, exit_code=exit_code, lease_open=still)

    def seal(self, attempt: int, *, gap: bool) -> JobLog:
        """The log after the lease of `attempt` closed: nothing more is taken from it."""
        return replace(
            self,
            sealed_attempt=max(self.sealed_attempt, attempt),
            lease_open=False if self.status in FINAL else self.lease_open,
            gap=self.gap or gap,
        )

    def append_system(self, count: int) -> JobLog:
        """Room for `count` entries written by the grid itself."""
        return replace(self, next_entry_id=self.next_entry_id + count)

    def _refusal(self, batch: Batch) -> Refusal | None:
        if batch.attempt < self.attempt:
            return Refusal.STALE_ATTEMPT
        if batch.attempt <= self.sealed_attempt:
            return Refusal.SEALED
        return None

    def _begin(self, attempt: int) -> JobLog:
        return replace(self, attempt=attempt, cursors={})

    def _within(self, lines: Sequence[Line], bytes_max: int) -> tuple[JobLog, Sequence[Line]]:
        """Cuts at the job's limit. Numbers go on being acknowledged, so that the node can end."""
        if self.truncated:
            return self, ()
        size = self.size_bytes
        for index, line in enumerate(lines):
            size += len(line.text.encode()) + 1
            if size > bytes_max:
                marker = Line(
                    Stream.SYSTEM, 0, f"log cut: the job wrote more than {bytes_max} bytes"
                )
                return replace(self, size_bytes=bytes_max, truncated=True), [*lines[:index], marker]
        return replace(self, size_bytes=size), lines

    def _advance(self, batch: Batch, cursors: Mapping[Stream, Cursor], count: int) -> JobLog:
        changed = {f"{batch.task_index}/{stream}": cursor for stream, cursor in cursors.items()}
        return replace(
            self,
            cursors={**self.cursors, **changed},
            next_entry_id=self.next_entry_id + count,
            gap=self.gap or batch.gap,
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, and whether more are stored after them."""

    log: JobLog
    entries: Sequence[Entry]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Update:
    """One step of a live stream: exactly one of `entry`, `status`, `notice`, `beat`, `end`."""

    entry: Entry | None = None
    status: str = ""
    notice: tuple[str, str] | None = None
    beat: datetime | None = None
    end: JobLog | None = None


@dataclass(frozen=True, slots=True)
class Tail:
    """The last lines of one stream, and whether there were more."""

    text: str
    truncated: bool


def _contiguous(
    lines: Sequence[Line], cursors: dict[Stream, Cursor]
) -> tuple[Sequence[Line], dict[Stream, Cursor]]:
    last = {stream: cursor.last for stream, cursor in cursors.items()}
    taken = []
    for line in lines:
        if line.seq != last[line.stream] + 1:
            # Seen before, or beyond a hole: in both cases the number stays as it is.
            continue
        last[line.stream] = line.seq
        taken.append(line)
    return taken, {stream: replace(cursors[stream], last=last[stream]) for stream in cursors}


def _ended(cursors: dict[Stream, Cursor], batch: Batch) -> dict[Stream, Cursor]:
    ended = {**cursors, **{s: replace(cursors[s], end=end) for s, end in batch.ends.items()}}
    if not batch.gap:
        return ended
    # What has not come will not come: each stream ends where it stands.
    return {stream: replace(cursor, end=cursor.last) for stream, cursor in ended.items()}
