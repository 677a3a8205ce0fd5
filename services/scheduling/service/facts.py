"""What the bus brings, in the transaction of its batch; the planner hears after the commit."""

from __future__ import annotations

from dataclasses import replace

from libs.db import Tx
from libs.tenancy import SystemScope, Tenant
from services.scheduling.domain import Entry, EntryState, NodeInfo, Placement
from services.scheduling.repository import Known
from services.scheduling.service.state import State


class Facts:
    """Effects of facts. Every method is idempotent and takes facts in any order."""

    def __init__(self, state: State) -> None:
        self._state = state
        # Taken from the planner inside a transaction whose end is not known yet.
        self._tentative: dict[tuple[str, int], Placement] = {}

    def queued(self, tx: Tx, tenant: Tenant, entry: Entry) -> None:
        """An attempt waits for nodes, or gets them at once when nobody is before it."""
        self._give_back(entry)
        known = self._state.rows.queue.known(tx, tenant, entry.job_id)
        if known is not None:
            if known.state is EntryState.ENDED or known.attempt >= entry.attempt:
                return
            entry = replace(entry, event_seq=known.event_seq)
        if not self._place_now(tx, tenant, entry, known):
            self._state.rows.queue.add_entry(
                tx, tenant, entry, EntryState.WAITING, new=known is None
            )
            tx.after_commit(lambda: self._wait(entry))

    def stopped(self, tx: Tx, tenant: Tenant, job_id: str, attempt: int) -> None:
        """Attempts up to this one are not wanted any more. What is held stays held: a lease must
        close first."""
        rows = self._state.rows.queue
        known = rows.known(tx, tenant, job_id)
        if known is not None and (known.attempt > attempt or known.state is EntryState.ENDED):
            return
        rows.stop(tx, tenant, job_id, attempt, new=known is None)
        tx.after_commit(lambda: self._drop(job_id))

    def ended(self, tx: Tx, tenant: Tenant, job_id: str) -> None:
        """The job is final."""
        self._state.rows.queue.end(tx, tenant, job_id)
        tx.after_commit(lambda: self._drop(job_id))

    def lease_closed(self, tx: Tx, scope: SystemScope, allocation_id: str) -> None:
        """A lease is over: what its allocation holds is free."""
        placed = self._state.rows.grid.free(tx, scope, allocation_id)
        if placed is not None:
            time = tx.now() - placed
            tx.after_commit(lambda: self._state.ran(time))
        tx.after_commit(lambda: self._freed(allocation_id))

    def node_changed(self, tx: Tx, scope: SystemScope, info: NodeInfo) -> None:
        """A node is new or offers something else. What is older than the row changes nothing."""
        before = self._state.rows.grid.node(tx, scope, info.node_id)
        if before is not None:
            if info.event_seq <= before.event_seq:
                return
            info = replace(info, version=before.version + 1)
        self._state.rows.grid.put_node(tx, scope, info, before)
        tx.after_commit(lambda: self._changed(info))

    def _place_now(self, tx: Tx, tenant: Tenant, entry: Entry, known: Known | None) -> bool:
        """Places an entry in the commit that heard of it. Only where this is what the queue would
        do: no other entry could go first. A gang is left to the loop, whose failed commits are
        whole transactions."""
        planner = self._state.planner
        if entry.tasks != 1 or planner.queue.next() is not None:
            return False
        placement = planner.place(entry, tx.now())
        if placement is None:
            return False
        key = (entry.job_id, entry.attempt)
        self._tentative[key] = placement
        if self._state.write(tx, (placement,)):
            self._give_back(entry)
            return False
        placed = replace(entry, event_seq=entry.event_seq + 1)
        self._state.rows.queue.add_entry(tx, tenant, placed, EntryState.PLACED, new=known is None)
        tx.after_commit(lambda: self._keep(key))
        return True

    def _give_back(self, entry: Entry) -> None:
        """Undoes what a transaction that was rolled back had taken."""
        placement = self._tentative.pop((entry.job_id, entry.attempt), None)
        if placement is not None:
            self._state.planner.undo(placement)

    def _keep(self, key: tuple[str, int]) -> None:
        self._tentative.pop(key, None)

    def _wait(self, entry: Entry) -> None:
        self._state.planner.queue.add(entry)
        self._state.wake()

    def _drop(self, job_id: str) -> None:
        self._state.planner.queue.drop(job_id)

    def _freed(self, allocation_id: str) -> None:
        if self._state.planner.free(allocation_id) is not None and len(self._state.planner.queue):
            self._state.wake()

    def _changed(self, info: NodeInfo) -> None:
        self._state.planner.put_node(info)
        if len(self._state.planner.queue):
            self._state.wake()
