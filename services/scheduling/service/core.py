"""Calls and time: quotes, explanations, the loop's batches, and the slow sweep."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from libs.clock import Clock
from libs.db import Database, Tx
from libs.telemetry import logger, metrics
from libs.tenancy import Tenant
from services.scheduling.domain import Placement, Quote, Shape, Waiting
from services.scheduling.errors import BadShape, StaleNodes
from services.scheduling.planner import explain, quote
from services.scheduling.service.facts import Facts
from services.scheduling.service.state import GRID, State

_log = logger("scheduling")
_stale = metrics.counter("grid_placements_stale_total", "Placements that the rows refused.")
_PURGE_BATCH = 500
_SAME_DRIFTS = 3
_STALE_MAX = 5


class SchedulingService:
    """Who runs where. `facts` takes what the bus brings."""

    def __init__(self, *, database: Database, state: State, clock: Clock) -> None:
        self._database = database
        self._state = state
        self._clock = clock
        self._drifts: list[tuple[int, ...]] = []
        self._stale_in_row = 0
        self.facts = Facts(state)

    def nobody_waits(self) -> bool:
        """The queue is empty."""
        return not len(self._state.planner.queue)

    def somebody_waits(self) -> bool:
        """The queue is not empty."""
        return not self.nobody_waits()

    async def load(self) -> None:
        """Fills the planner from the tables. Has to be done before anything is asked or heard."""
        await self._database.write(self._state.load)

    async def quote(self, shape: Shape, tasks: int) -> Quote:
        """Where work of this shape would run, at what price and when. Holds nothing."""
        if shape.gpu_count < 0 or min(shape.cpu_millis, shape.memory_bytes, shape.disk_bytes) < 0:
            raise BadShape("resources must not be negative")
        return quote(self._state.planner, shape, tasks, self._clock.now(), self._state.terms)

    async def explain_queue_entry(self, tenant: Tenant, job_id: str) -> Waiting:
        """Why a job of the workspace is not placed."""
        entry = self._state.planner.queue.entries.get(job_id)
        mine = entry is not None and entry.workspace_id == tenant.workspace_id
        return explain(self._state.planner, entry if mine else None)

    async def place_batch(self) -> int:
        """Plans and commits once; returns how many entries were placed or found stale, 0 when
        nothing that waits fits."""
        planner = self._state.planner
        limit = self._state.config.placements_per_commit_max
        planned = planner.plan(self._clock.now(), limit)
        if not planned:
            return 0
        try:
            gone = await self._database.write(lambda tx: self._commit(tx, planned))
        except Exception as error:
            await self._take_back(planned, error)
            if not isinstance(error, StaleNodes):
                raise
            self._stale_in_row += 1
            return len(planned) if self._stale_in_row < _STALE_MAX else await self._start_over()
        self._stale_in_row = 0
        for placement in gone:
            planner.undo(placement)
        if planner is not self._state.planner:  # rebuilt meanwhile, from rows without these
            await self.load()
        _stale.inc(len(gone))
        return len(planned)

    def _commit(self, tx: Tx, planned: Sequence[Placement]) -> list[Placement]:
        """Writes all placements whose entries still wait; returns the others. Raises StaleNodes,
        and so keeps nothing, when a node is not as the planner saw it."""
        kept: list[Placement] = []
        gone: list[Placement] = []
        for placement in planned:
            tenant = Tenant(placement.entry.workspace_id)
            waits = self._state.rows.queue.mark_placed(tx, tenant, placement.entry)
            (kept if waits else gone).append(placement)
        if kept:
            stale = self._state.write(tx, kept)
            if stale:
                raise StaleNodes(stale)
        return gone

    async def _start_over(self) -> int:
        """The planner insists on what the rows refuse: it is built anew, and the loop rests until
        the next change or sweep. Else it would spin, and never sweep again."""
        self._stale_in_row = 0
        _log.warning("placements stay stale, rebuilding the planner")
        await self.load()
        return 0

    async def _take_back(self, planned: Sequence[Placement], error: BaseException) -> None:
        """Drops what was planned, and reads again what it was planned from."""
        for placement in planned:
            self._state.planner.undo(placement)
        _stale.inc(len(planned))
        _log.warning("placements were not kept", placements=len(planned), error=repr(error))
        node_ids = error.node_ids if isinstance(error, StaleNodes) else frozenset()
        job_ids = [placement.entry.job_id for placement in planned]
        await self._database.write(lambda tx: self._read_again(tx, node_ids, job_ids))

    def _read_again(self, tx: Tx, node_ids: frozenset[str], job_ids: Sequence[str]) -> None:
        for node_id in node_ids:
            info = self._state.rows.grid.node(tx, GRID, node_id)
            if info is not None:
                self._state.planner.put_node(info)
        for entry in self._state.rows.queue.waiting(tx, GRID, job_ids):
            self._state.planner.queue.add(entry)

    async def sweep(self) -> None:
        """Ages what waits, forgets what has been over for long, and compares the planner with the
        tables. Commits in flight make small differences that come and go; one that stays the same
        means that a change was missed, and the planner is rebuilt."""
        self._state.planner.age(self._clock.now())
        drift = await self._database.write(self._drift)
        self._drifts = [*self._drifts, drift][-_SAME_DRIFTS:]
        if any(drift) and self._drifts == [drift] * _SAME_DRIFTS:
            _log.warning("the planner missed a change, rebuilding it", drift=drift)
            await self.load()
            self._drifts = []
        await self._purge()

    def _drift(self, tx: Tx) -> tuple[int, ...]:
        """Nodes, their versions, holds and entries: what the planner has more than the tables."""
        planner, rows = self._state.planner, self._state.rows
        there = rows.grid.counts(tx, GRID)
        versions = sum(node.info.version for node in planner.grid.nodes.values())
        return (
            len(planner.grid.nodes) - there.nodes,
            versions - there.versions,
            len(planner.grid.holds) - there.holds,
            len(planner.queue) - rows.queue.count(tx, GRID),
        )

    async def _purge(self) -> None:
        before = self._clock.now() - timedelta(seconds=self._state.config.ended_kept_seconds)
        while await self._database.write(
            lambda tx: self._state.rows.queue.purge(tx, GRID, before, _PURGE_BATCH)
        ):
            pass
