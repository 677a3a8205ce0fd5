"""What the bus brings. A batch of facts is one unit of work:

    handlers    read each job's place in the queue once, and note what changes
    at the end  the planner hears of all changes and plans; the rows are written with the placements
                that this made possible, in the commit of the facts that caused them

The planner is thereby ahead of the rows until the commit. When a unit is undone, the next one
rebuilds the planner from the tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from libs.db import Tx
from libs.errors import StaleWrite
from libs.tenancy import SystemScope, Tenant
from services.scheduling.domain import Entry, EntryState, NodeInfo, Placement
from services.scheduling.errors import StaleNodes
from services.scheduling.repository import Place
from services.scheduling.service.state import GRID, State


@dataclass(slots=True)
class _Batch:
    """What a unit of work has read and changed."""

    places: dict[tuple[str, str], Place] = field(default_factory=dict)
    nodes: dict[str, NodeInfo] = field(default_factory=dict)
    freed: list[str] = field(default_factory=list)


class Facts:
    """Effects of facts. Every method is idempotent and takes facts in any order."""

    def __init__(self, state: State) -> None:
        self._state = state
        # The unit of work whose changes the planner has and the rows may not.
        self._ahead: _Batch | None = None

    def queued(self, tx: Tx, tenant: Tenant, entry: Entry) -> None:
        """An attempt waits for nodes."""
        place = self._place(tx, tenant, entry.job_id)
        if place.state is EntryState.ENDED or place.attempt >= entry.attempt:
            return
        place.attempt, place.state = entry.attempt, EntryState.WAITING
        place.entry = replace(entry, event_seq=place.event_seq)
        place.changed = True

    def stopped(self, tx: Tx, tenant: Tenant, job_id: str, attempt: int) -> None:
        """Attempts up to this one are not wanted any more. What is held stays held: a lease must
        close first."""
        place = self._place(tx, tenant, job_id)
        if place.state is EntryState.ENDED or place.attempt > attempt:
            return
        place.attempt, place.state, place.changed = attempt, EntryState.STOPPED, True

    def ended(self, tx: Tx, tenant: Tenant, job_id: str) -> None:
        """The job is final. Its row stays as a tombstone for facts that come late."""
        place = self._place(tx, tenant, job_id)
        if place.state is not EntryState.ENDED:
            place.state, place.changed = EntryState.ENDED, True

    def lease_closed(
        self, tx: Tx, scope: SystemScope, allocation_id: str, failed_node: str = ""
    ) -> None:
        """A lease is over: what its allocation holds is free. `failed_node` is the node when it
        failed by no fault of the job; only the planner remembers that, and not for long."""
        if failed_node:
            self._state.planner.suspect(failed_node, tx.now())
        placed = self._state.rows.grid.free(tx, scope, allocation_id)
        if placed is not None:
            self._state.ran(tx.now() - placed)
        self._batch(tx).freed.append(allocation_id)

    def node_changed(self, tx: Tx, scope: SystemScope, info: NodeInfo) -> None:
        """A node is new or offers something else. What is older than the row changes nothing."""
        before = self._state.rows.grid.node(tx, scope, info.node_id)
        if before is not None:
            if info.event_seq <= before.event_seq:
                return
            info = replace(info, version=before.version + 1)
        self._state.rows.grid.put_node(tx, scope, info, before)
        self._batch(tx).nodes[info.node_id] = info

    def _place(self, tx: Tx, tenant: Tenant, job_id: str) -> Place:
        places = self._batch(tx).places
        key = (tenant.workspace_id, job_id)
        if key not in places:
            places[key] = self._state.rows.queue.place(tx, tenant, job_id)
        return places[key]

    def _batch(self, tx: Tx) -> _Batch:
        return tx.memo(_Batch, lambda: self._begin(tx))

    def _begin(self, tx: Tx) -> _Batch:
        # The consumer applies one batch after the other: a former one is committed or undone.
        if self._ahead is not None:
            self._state.load(tx)
            self._ahead = None
        batch = _Batch()
        tx.before_commit(lambda: self._finish(tx, batch))
        return batch

    def _finish(self, tx: Tx, batch: _Batch) -> None:
        self._ahead = batch
        tx.after_commit(self._caught_up)
        self._tell_planner(batch)
        limit = self._state.config.placements_per_commit_max
        planned = self._state.planner.plan(tx.now(), limit)
        kept = [each for each in planned if self._take(tx, each)]
        self._write_places(tx, batch, kept)
        if len(kept) < len(planned) or len(planned) == limit:
            tx.after_commit(self._state.wake)

    def _caught_up(self) -> None:
        self._ahead = None

    def _tell_planner(self, batch: _Batch) -> None:
        planner = self._state.planner
        for info in batch.nodes.values():
            planner.put_node(info)
        for allocation_id in batch.freed:
            planner.free(allocation_id)
        for (_, job_id), place in batch.places.items():
            if not place.changed:
                continue
            if place.state is EntryState.WAITING and place.entry is not None:
                planner.queue.add(place.entry)
            else:
                planner.drop(job_id)

    def _take(self, tx: Tx, placement: Placement) -> bool:
        """Writes one placement; False when its node is not as the planner saw it. Then the node is
        read again and the entry waits on. Only a gang, of which a part may be written by then, has
        to undo the whole unit."""
        stale = self._state.write(tx, (placement,))
        if not stale:
            return True
        if len(placement.holds) > 1:
            raise StaleNodes(stale)
        self._state.planner.undo(placement)
        for node_id in stale:
            info = self._state.rows.grid.node(tx, GRID, node_id)
            if info is not None:
                self._state.planner.put_node(info)
        self._state.planner.queue.add(placement.entry)
        return False

    def _write_places(self, tx: Tx, batch: _Batch, kept: list[Placement]) -> None:
        others = []
        for placement in kept:
            entry = placement.entry
            place = batch.places.get((entry.workspace_id, entry.job_id))
            if place is None or not place.changed:
                others.append(entry)
            else:
                place.state, place.event_seq = EntryState.PLACED, entry.event_seq + 1
        rows = self._state.rows.queue
        if rows.mark_all_placed(tx, GRID, others) != len(others):
            raise StaleWrite("an entry that was placed does not wait any more")
        rows.write(tx, GRID, {key: place for key, place in batch.places.items() if place.changed})
