"""The two decisions that are nodes' alone: whether a lease may start, and that it is over."""

from __future__ import annotations

from functools import partial
from typing import Any

from libs import failpoints
from libs.db import Tx, retry_stale
from libs.telemetry import logger, metrics
from services.nodes.domain import Claim, ClaimOutcome, Closing, Lease, LeaseState, Outcome
from services.nodes.errors import LaunchRefused, LeaseNotFound, StaleSession
from services.nodes.service.deps import SCOPE, Deps

_log = logger("nodes")
_claims = metrics.counter("grid_nodes_claims_total", "Answers to StartClaim.", ("outcome",))
AFTER_GRANT = failpoints.register(
    "nodes.claim.after_grant", "the start is granted in the table, the node does not know it"
)
AFTER_COMPLETE = failpoints.register(
    "nodes.complete.after_commit", "the lease is closed, the node does not know it"
)


class Claims:
    """Asked by nodes."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def start_claim(self, node_id: str, epoch: int, lease_id: str, attempt: int) -> Claim:
        """Whether the node may start the lease now.

        jobs is asked before the compare-and-set: a refusal then closes a lease that was never
        claimed, and an outage leaves it ASSIGNED for the node to ask again. The other order could
        claim, and bill, a lease that nobody can run.
        """
        lease = self._offered(node_id, epoch, lease_id)
        if lease is None:
            lease = await self._deps.database.read(
                lambda tx: self._deps.repository.lease(tx, SCOPE, lease_id)
            )
        if lease is None or not _may_ask(lease, node_id, epoch, attempt):
            return _answer(ClaimOutcome.REVOKED)
        again = lease.may_be_granted_again(epoch)
        if lease.state is not LeaseState.ASSIGNED and not again:
            return _answer(ClaimOutcome.ALREADY_CLAIMED)
        try:
            launch = await self._deps.launches.get_launch(lease)
        except LaunchRefused:
            await self._refuse(lease_id, epoch)
            return _answer(ClaimOutcome.REVOKED)
        outcome = await self._claim(lease_id, node_id, epoch, again=again)
        if outcome is not ClaimOutcome.GRANT:
            return _answer(outcome)
        await AFTER_GRANT.hit_async()
        return self._grant(lease, epoch, launch)

    def _offered(self, node_id: str, epoch: int, lease_id: str) -> Lease | None:
        """The lease as this process has just offered it, while nothing speaks against it: it saves
        a read, and the compare-and-set looks at the row in any case."""
        session = self._deps.sessions.get(node_id)
        if session is None or session.epoch != epoch:
            return None
        lease = session.wanted.get(lease_id)
        return lease if lease is not None and lease.state is LeaseState.ASSIGNED else None

    async def complete(
        self, node_id: str, epoch: int, lease_id: str, attempt: int, closing: Closing
    ) -> bool:
        """Closes the lease; False when it was closed before, with whatever outcome."""

        def work(tx: Tx) -> bool:
            lease = self._deps.repository.lease(tx, SCOPE, lease_id)
            if lease is None or lease.node_id != node_id or lease.attempt != attempt:
                raise LeaseNotFound("this node has no such lease")
            if not lease.open:
                return False
            if lease.session_epoch != epoch:
                raise StaleSession
            closed = self._deps.move(tx, lease, lease.complete(closing, tx.now()))
            tx.after_commit(partial(self._deps.sessions.note, closed))
            return True

        accepted = await retry_stale(lambda: self._deps.database.write(work))
        await AFTER_COMPLETE.hit_async()
        return accepted

    async def _claim(self, lease_id: str, node_id: str, epoch: int, *, again: bool) -> ClaimOutcome:
        """The compare-and-set. Who finds the lease claimed only now has been overtaken by a twin
        of the same call, and is told so."""

        def work(tx: Tx) -> ClaimOutcome:
            lease = self._deps.repository.lease(tx, SCOPE, lease_id)
            if lease is None or not _may_ask(lease, node_id, epoch, lease.attempt):
                return ClaimOutcome.REVOKED
            if again and lease.may_be_granted_again(epoch):
                return ClaimOutcome.GRANT
            if lease.state is not LeaseState.ASSIGNED:
                return ClaimOutcome.ALREADY_CLAIMED
            claimed = self._deps.move(tx, lease, lease.claim(epoch, tx.now()))
            tx.after_commit(partial(self._deps.sessions.note, claimed))
            return ClaimOutcome.GRANT

        return await retry_stale(lambda: self._deps.database.write(work))

    async def _refuse(self, lease_id: str, epoch: int) -> None:
        """Also a lease that was granted, when its node still asks: it runs nothing, and once it is
        told REVOKED it would never speak of the lease again."""
        closing = Closing(Outcome.CANCELLED, message="the attempt was not wanted any more")

        def work(tx: Tx) -> None:
            lease = self._deps.repository.lease(tx, SCOPE, lease_id)
            if lease is None:
                return
            if lease.state is LeaseState.ASSIGNED or lease.may_be_granted_again(epoch):
                closed = self._deps.move(tx, lease, lease.close(closing, tx.now()))
                tx.after_commit(partial(self._deps.sessions.offer, closed))

        await retry_stale(lambda: self._deps.database.write(work))
        _log.info("launch refused, lease closed unstarted", lease_id=lease_id)

    def _grant(self, lease: Lease, epoch: int, launch: Any) -> Claim:
        expires = self._deps.clock.now().timestamp() + self._deps.config.grant_seconds
        session = self._deps.sessions.get(lease.node_id)
        if session is not None:
            session.granted[lease.lease_id] = (
                self._deps.clock.monotonic() + self._deps.config.grant_seconds
            )
        grant = self._deps.sign_grant(lease, expires)
        _claims.labels(ClaimOutcome.GRANT.value).inc()
        return Claim(ClaimOutcome.GRANT, launch, grant, expires)


def _may_ask(lease: Lease, node_id: str, epoch: int, attempt: int) -> bool:
    """Another node's lease, a closed one and one of another session all answer alike."""
    same = (lease.node_id, lease.session_epoch, lease.attempt) == (node_id, epoch, attempt)
    return same and lease.open and not (lease.stop and lease.state is LeaseState.ASSIGNED)


def _answer(outcome: ClaimOutcome) -> Claim:
    _claims.labels(outcome.value).inc()
    return Claim(outcome)
