"""Who is next.

Entries are grouped by shape: when the first of a shape does not fit, none of that shape does, and
the others go on (so a big job blocks nobody). Among the shapes that are not blocked, the workspace
that holds least of the grid comes first, and within a workspace whoever submitted first.

Heaps are lazy: an item is checked against the truth when it comes to the top, and thrown away or
put back with its new place.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from heapq import heappop, heappush
from itertools import count

from services.scheduling.domain import Entry, Shape

LineKey = tuple[Shape, int]
# Weight held by the workspace, first-come order, workspace, line's number.
_Item = tuple[int, datetime, str, str, int]


class Line:
    """The entries of one shape and number of tasks, by workspace."""

    __slots__ = ("blocked", "count", "heaps", "number", "shape", "tasks")

    def __init__(self, key: LineKey, number: int) -> None:
        self.shape, self.tasks = key
        self.number = number
        # The number in front of the entry makes an item total: an entry may come back.
        self.heaps: dict[str, list[tuple[datetime, str, int, Entry]]] = {}
        self.count = 0
        self.blocked = False


class Queue:
    """All entries that wait."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.lines: dict[LineKey, Line] = {}
        self.blocked: dict[int, Line] = {}
        self._items = count()
        self._by_number: dict[int, Line] = {}
        self._numbers = 0
        self._served: dict[str, int] = {}
        self._lines_of: dict[str, set[int]] = {}
        self._ready: list[_Item] = []

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, entry: Entry) -> None:
        """An entry waits; a former attempt of the same job does not any more."""
        former = self.entries.get(entry.job_id)
        if former is not None:
            if former.attempt >= entry.attempt:
                return
            self.drop(entry.job_id)
        self.entries[entry.job_id] = entry
        key = (entry.shape, entry.tasks)
        line = self.lines.get(key)
        if line is None:
            self._numbers += 1
            line = self.lines[key] = Line(key, self._numbers)
            self._by_number[line.number] = line
        heap = line.heaps.setdefault(entry.workspace_id, [])
        heappush(heap, (*entry.order, next(self._items), entry))
        line.count += 1
        self._lines_of.setdefault(entry.workspace_id, set()).add(line.number)
        if not line.blocked and heap[0][3] is entry:
            self._offer(line, entry.workspace_id)

    def drop(self, job_id: str) -> Entry | None:
        """The job waits no more."""
        entry = self.entries.pop(job_id, None)
        if entry is None:
            return None
        key = (entry.shape, entry.tasks)
        line = self.lines[key]
        line.count -= 1
        if not line.count:
            del self.lines[key]
            del self._by_number[line.number]
            self.blocked.pop(line.number, None)
            for workspace_id in line.heaps:
                self._forget(workspace_id, line.number)
        return entry

    def served(self, workspace_id: str, change: int) -> None:
        """A workspace holds more, or less, of the grid."""
        weight = self._served.get(workspace_id, 0) + change
        if weight > 0:
            self._served[workspace_id] = weight
        else:
            self._served.pop(workspace_id, None)
        if change < 0:
            # A place that got better has to be offered; one that got worse is found out at the top.
            for number in self._lines_of.get(workspace_id, ()):
                line = self._by_number[number]
                if not line.blocked:
                    self._offer(line, workspace_id)

    def block(self, line: Line) -> None:
        """Nothing of this shape fits now."""
        line.blocked = True
        self.blocked[line.number] = line

    def unblock(self, line: Line) -> None:
        """Something of this shape may fit again."""
        if line.blocked:
            line.blocked = False
            del self.blocked[line.number]
            for workspace_id in line.heaps:
                self._offer(line, workspace_id)

    def next(self) -> Entry | None:
        """The entry whose turn it is; it stays in the queue. None when all are blocked."""
        while self._ready:
            item = self._ready[0]
            line = self._by_number.get(item[4])
            true = None if line is None or line.blocked else self._item(line, item[3])
            if true == item:
                return self.entries[item[2]]
            heappop(self._ready)
            # A former item of this pair may be further down too; it is thrown away in its turn.
            if true is not None and true > item:
                heappush(self._ready, true)
        return None

    def first(self, line: Line) -> Entry | None:
        """The oldest entry of a shape."""
        heads = [head for name in list(line.heaps) if (head := self._head(line, name)) is not None]
        return min(heads, key=lambda entry: entry.order, default=None)

    def line(self, entry: Entry) -> Line:
        """The line that an entry stands in."""
        return self.lines[(entry.shape, entry.tasks)]

    def before(self, entry: Entry) -> Iterator[Entry]:
        """Entries that were submitted earlier."""
        return (other for other in self.entries.values() if other.order < entry.order)

    def _offer(self, line: Line, workspace_id: str) -> None:
        item = self._item(line, workspace_id)
        if item is not None:
            heappush(self._ready, item)

    def _item(self, line: Line, workspace_id: str) -> _Item | None:
        head = self._head(line, workspace_id)
        if head is None:
            return None
        weight = self._served.get(workspace_id, 0)
        return (weight, head.submitted_time, head.job_id, workspace_id, line.number)

    def _head(self, line: Line, workspace_id: str) -> Entry | None:
        heap = line.heaps.get(workspace_id)
        while heap:
            entry = heap[0][3]
            if self.entries.get(entry.job_id) is entry:
                return entry
            heappop(heap)
        if heap is not None:
            del line.heaps[workspace_id]
            self._forget(workspace_id, line.number)
        return None

    def _forget(self, workspace_id: str, number: int) -> None:
        numbers = self._lines_of.get(workspace_id)
        if numbers is not None:
            numbers.discard(number)
            if not numbers:
                del self._lines_of[workspace_id]
