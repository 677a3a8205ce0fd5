"""Choices: which entries go where, now.

plan    entries that have waited long, then the queue's order; what does not fit blocks its line
        until a node that fits it has changed
age     the oldest blocked entries get nodes kept free for them, so that small work cannot starve
        big work; in the meantime such a node takes only work that ends before it is needed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from services.scheduling.domain import Entry, Hold, NodeInfo, Placement, Shape
from services.scheduling.planner.catalogue import Catalogue
from services.scheduling.planner.grid import Grid, Node
from services.scheduling.planner.match import Match, capacity
from services.scheduling.planner.queue import Line, Queue
from services.scheduling.planner.view import View, Views

_KEEP_CANDIDATES = 64
# A run without a limit counts as one of a year.
_RUN_SECONDS_MAX = 366 * 86_400
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """When an entry counts as old, for how many such entries nodes are kept, and how long a node
    that failed is chosen last."""

    aging_seconds: float = 120.0
    aged_entries_max: int = 8
    suspect_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Kept:
    """Nodes kept for an entry, each with the time at which it will have room."""

    entry: Entry
    nodes: dict[str, datetime]


class Planner:
    """The state of the grid and the queue, fed by changes. Calls are quick and never wait."""

    def __init__(self, catalogue: Catalogue, rules: Rules, new_id: Callable[[], str]) -> None:
        self.grid = Grid(catalogue)
        self.queue = Queue()
        self.views = Views(self.grid)
        self._rules = rules
        self._new_id = new_id
        self._kept: dict[str, Kept] = {}
        self._suspects: dict[str, datetime] = {}
        self._seen = 0

    def put_node(self, info: NodeInfo) -> None:
        """A node is new or has changed."""
        self.grid.put(info)

    def hold(self, hold: Hold) -> None:
        """A hold that is there already, from the tables."""
        if hold.allocation_id not in self.grid.holds:
            self.grid.take(hold)
            self.queue.served(hold.workspace_id, hold.weight)

    def free(self, allocation_id: str) -> Hold | None:
        """A hold is over; None when it was not known."""
        hold = self.grid.free(allocation_id)
        if hold is not None:
            self.queue.served(hold.workspace_id, -hold.weight)
        return hold

    def drop(self, job_id: str) -> None:
        """A job waits no more; nodes that were kept for it are for everyone again."""
        self.queue.drop(job_id)
        self._unkeep(job_id)

    def suspect(self, node_id: str, now: datetime) -> None:
        """An attempt failed on this node by no fault of the job."""
        self._suspects[node_id] = now + timedelta(seconds=self._rules.suspect_seconds)

    def undo(self, placement: Placement) -> None:
        """A placement was not committed; its entry has to be added again if it still waits."""
        for hold in placement.holds:
            self.free(hold.allocation_id)

    def plan(self, now: datetime, limit: int) -> list[Placement]:
        """Up to `limit` placements, already taken from the grid and out of the queue."""
        placed: list[Placement] = []
        if self._notice():
            self._place_kept(now, limit, placed)
        while len(placed) < limit and (entry := self.queue.next()) is not None:
            found = self.place(entry, now)
            if found is None:
                self.queue.block(self.queue.line(entry))
            else:
                placed.append(found)
        return placed

    def place(self, entry: Entry, now: datetime) -> Placement | None:
        """Takes nodes for one entry, or leaves everything as it was."""
        view = self.views.of(entry.shape)
        start = view.start
        seeker = self._wary(entry, now) if self._suspects else entry
        holds: list[Hold] = []
        prices = 0
        simulated = False
        relaxed: tuple[str, ...] = ()
        end = now + timedelta(seconds=min(entry.timeout_seconds, _RUN_SECONDS_MAX))
        for task in range(entry.tasks):
            picked = self._pick(view, seeker, end)
            if picked is None:
                for hold in holds:
                    self.grid.free(hold.allocation_id, note=False)
                view.start = start
                return None
            node, found = picked
            hold = self._hold(entry, task, node, found, now, end)
            self.grid.take(hold)
            holds.append(hold)
            prices += found.price
            simulated = simulated or node.info.simulates(hold.gpu_uuids)
            relaxed = relaxed or found.relaxed
        self.drop(entry.job_id)
        self.queue.served(entry.workspace_id, sum(hold.weight for hold in holds))
        return Placement(entry, tuple(holds), prices // entry.tasks, simulated, relaxed)

    def fits_now(self, shape: Shape, tasks: int, now: datetime) -> Node | None:
        """The node of the first task if all could be taken now. Changes nothing."""
        view = self.views.of(shape)
        entry = Entry("", "", 0, shape, tasks, now, 0, "")
        start, first = view.start, None
        holds: list[Hold] = []
        for task in range(tasks):
            picked = self._pick(view, entry, now)
            if picked is None:
                first = None
                break
            node, found = picked
            first = first or node
            if tasks > 1:
                hold = self._hold(entry, task, node, found, now, now)
                self.grid.take(hold)
                holds.append(hold)
        for hold in holds:
            self.grid.free(hold.allocation_id, note=False)
        view.start = start
        return first

    def age(self, now: datetime) -> None:
        """Keeps nodes for entries that have waited long, and lets go of those not needed."""
        for job_id, kept in list(self._kept.items()):
            alive = self.queue.entries.get(job_id) is kept.entry
            if not alive or not all(self.grid.nodes[name].info.open for name in kept.nodes):
                self._unkeep(job_id)
        old = now - timedelta(seconds=self._rules.aging_seconds)
        heads = [self.queue.first(line) for line in self.queue.blocked.values()]
        waiting = [head for head in heads if head is not None and head.submitted_time <= old]
        for entry in sorted(waiting, key=lambda entry: entry.order):
            if len(self._kept) >= self._rules.aged_entries_max:
                break
            if entry.job_id not in self._kept:
                self._keep(entry, now)

    def _wary(self, entry: Entry, now: datetime) -> Entry:
        """The entry, avoiding nodes that failed lately too."""
        self._suspects = {name: until for name, until in self._suspects.items() if until > now}
        return replace(entry, avoid=entry.avoid.union(self._suspects))

    def _notice(self) -> bool:
        """Unblocks lines that a changed node fits; True when any node has changed."""
        if self._seen == self.grid.now:
            return False
        changes = self.grid.changes(self._seen)
        nodes = None if changes is None else {node.node_id: node for node in changes}
        for line in list(self.queue.blocked.values()):
            if nodes is None or self._fits_any(line, nodes.values()):
                self.queue.unblock(line)
        self._seen = self.grid.now
        return True

    def _fits_any(self, line: Line, nodes: Iterable[Node]) -> bool:
        matches = self.views.of(line.shape).matches
        for node in nodes:
            found = matches.get(id(node.kind))
            if found is not None and node.info.open and node.fits(line.shape, found):
                return True
        return False

    def _pick(self, view: View, entry: Entry, end: datetime) -> tuple[Node, Match] | None:
        """A node for one task: the best kind that has room, nodes to avoid last."""
        shape, avoid, order = view.shape, entry.avoid, view.order
        for place in range(view.start, len(order)):
            kind, found = order[place]
            node_id = kind.find(shape, found, avoid)
            if node_id is not None:
                return self.grid.nodes[node_id], found
            if place == view.start and not avoid:
                view.start = place + 1
        if self.grid.kept:
            kept = self._pick_kept(view, entry, end)
            if kept is not None:
                return kept
        if avoid:
            return self._pick(view, replace(entry, avoid=_NOBODY), end)
        return None

    def _pick_kept(self, view: View, entry: Entry, end: datetime) -> tuple[Node, Match] | None:
        """A node kept for this entry, or one that this entry leaves before it is needed."""
        for node_id, owner in self.grid.kept.items():
            node = self.grid.nodes[node_id]
            found = view.matches.get(id(node.kind))
            if found is None or not node.info.open or not node.fits(view.shape, found):
                continue
            own = owner == entry.job_id
            if own or (entry.job_id and end <= self._kept[owner].nodes[node_id]):
                return node, found
        return None

    def _hold(
        self, entry: Entry, task: int, node: Node, found: Match, now: datetime, end: datetime
    ) -> Hold:
        shape = entry.shape
        return Hold(
            self._new_id(),
            entry.workspace_id,
            entry.job_id,
            entry.attempt,
            task,
            node.node_id,
            shape.cpu_millis,
            shape.memory_bytes,
            shape.disk_bytes,
            _gpus(node, found.mask, shape.gpu_count) if shape.gpu_count else (),
            now,
            end,
        )

    def _place_kept(self, now: datetime, limit: int, placed: list[Placement]) -> None:
        for kept in sorted(self._kept.values(), key=lambda kept: kept.entry.order):
            if len(placed) >= limit:
                return
            if self.queue.entries.get(kept.entry.job_id) is kept.entry:
                found = self.place(kept.entry, now)
                if found is not None:
                    placed.append(found)

    def _keep(self, entry: Entry, now: datetime) -> None:
        """Keeps the nodes that will have room for the entry soonest."""
        view = self.views.of(entry.shape)
        shape = entry.shape
        ranked = sorted(
            (
                _room_time(node, shape, found, now),
                node.node_id,
                capacity(node.kind.key, shape, found),
            )
            for node, found in islice(_candidates(self.grid, view), _KEEP_CANDIDATES)
        )
        chosen: dict[str, datetime] = {}
        tasks = entry.tasks
        for when, node_id, room in ranked:
            if tasks > 0:
                chosen[node_id] = when
                tasks -= room
        if tasks > 0:
            return  # more than these nodes could ever hold: keeping them would help nobody
        self._kept[entry.job_id] = Kept(entry, chosen)
        for node_id in chosen:
            self.grid.keep(node_id, entry.job_id)

    def _unkeep(self, job_id: str) -> None:
        kept = self._kept.pop(job_id, None)
        for node_id in kept.nodes if kept is not None else ():
            self.grid.unkeep(node_id)


def _room_time(node: Node, shape: Shape, found: Match, now: datetime) -> datetime:
    """When the node will have room for one task, if every hold lasts as long as it may."""
    scratch = Node(node.info, node.kind)
    for hold in node.holds.values():
        scratch.take(hold)
    when = now
    for hold in sorted(node.holds.values(), key=lambda each: (each.end_time, each.allocation_id)):
        if scratch.fits(shape, found):
            break
        scratch.give(hold)
        when = max(when, hold.end_time)
    return when


def _candidates(grid: Grid, view: View) -> Iterator[tuple[Node, Match]]:
    """Nodes that could ever take a task: best kinds first, and in them the most free first."""
    for kind, found in view.order:
        for level in reversed(kind.levels):
            for key in reversed(level.keys):
                for node_id in level.buckets[key]:
                    yield grid.nodes[node_id], found


def _gpus(node: Node, mask: int, count: int) -> tuple[str, ...]:
    """The first free GPUs that match."""
    free = node.free & mask
    chosen = []
    for place, gpu in enumerate(node.info.gpus):
        if free >> place & 1:
            chosen.append(gpu.uuid)
            if len(chosen) == count:
                break
    return tuple(chosen)
