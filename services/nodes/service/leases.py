"""What other services cause: a lease is opened, a lease must end."""

from __future__ import annotations

from functools import partial

from libs import failpoints
from libs.db import Tx
from libs.tenancy import Tenant
from services.nodes.domain import (
    Closing,
    Lease,
    Moved,
    Node,
    Opened,
    Outcome,
    Placement,
    Slot,
    Terms,
)
from services.nodes.service.deps import SCOPE, Deps

AFTER_OPEN = failpoints.register(
    "nodes.open_lease.after_commit", "leases of a placement are open, no session knows it"
)


class Leases:
    """Effects of facts, in the transaction of their batch."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    def apply_placed(self, tx: Tx, tenant: Tenant, placement: Placement) -> None:
        """Opens a lease for each allocation that has none.

        A node that is online but out of reach gets its lease too: the session it opens next finds
        it, or the server's deadline closes it. For a node that was given up, or that nobody
        knows, waiting would only hold the job back: the lease is closed at once.
        """
        for slot in placement.slots:
            if not self._deps.repository.has_allocation(tx, SCOPE, slot.allocation_id):
                self._open(tx, tenant, placement, slot)
        tx.after_commit(AFTER_OPEN.hit)

    def apply_stop(self, tx: Tx, job_id: str, attempt: int, reason: str) -> None:
        """Ends the leases of a job up to an attempt: unstarted ones at once, the others when their
        node says so."""
        for lease in self._deps.repository.open_leases_of_job(tx, SCOPE, job_id):
            if lease.attempt > attempt:
                continue
            moved = lease.request_stop(reason, tx.now())
            if moved.lease is not lease:
                self._offer(tx, self._deps.move(tx, lease, moved))

    def _open(self, tx: Tx, tenant: Tenant, placement: Placement, slot: Slot) -> None:
        node = self._deps.repository.node(tx, SCOPE, slot.node_id)
        lease = Lease(
            workspace_id=tenant.workspace_id,
            lease_id=self._deps.ids.new("lease"),
            job_id=placement.job_id,
            attempt=placement.attempt,
            task_index=slot.task_index,
            allocation_id=slot.allocation_id,
            node_id=slot.node_id,
            session_epoch=node.session_epoch if node else 0,
            terms=_terms(placement, slot, node),
            open_time=tx.now(),
        )
        moved = Moved(lease, (Opened(),))
        if node is None or not node.live:
            closing = Closing(Outcome.NODE_LOST, message="the node was gone before the start")
            closed = lease.close(closing, tx.now())
            moved = Moved(closed.lease, (Opened(), *closed.facts))
        self._deps.repository.add_lease(tx, SCOPE, moved.lease)
        self._deps.tell(tx, moved.lease, moved.facts)
        self._offer(tx, moved.lease)

    def _offer(self, tx: Tx, lease: Lease) -> None:
        tx.after_commit(partial(self._deps.sessions.offer, lease))


def close_leases(deps: Deps, tx: Tx, node: Node, message: str) -> int:
    """Closes all leases of a node that is gone; its meter stops when it was last heard of."""
    found = deps.repository.open_leases(tx, SCOPE, node.node_id)
    closing = Closing(Outcome.NODE_LOST, message=message)
    for lease in found:
        deps.move(tx, lease, lease.close(closing, tx.now(), meter_end=node.renewed_time))
    return len(found)


def _terms(placement: Placement, slot: Slot, node: Node | None) -> Terms:
    return Terms(
        placement_id=placement.placement_id,
        resources=slot.resources,
        gpus=slot.gpus,
        price_micros_per_hour=placement.price_micros_per_hour,
        reservation_id=placement.reservation_id,
        timeout_seconds=placement.timeout_seconds,
        simulated=placement.simulated or (node is not None and node.inventory.simulates(slot.gpus)),
        region=node.region if node else "",
        provider_name=node.provider_name if node else "",
    )
