"""Sessions: a node tells what it holds, and is told what it should hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from libs.db import Tx, retry_stale
from libs.errors import GridError
from libs.telemetry import logger, metrics
from services.nodes.domain import Hello, Lease, NodeReport, NodeState, Report
from services.nodes.errors import CredentialRefused, IllegalMove, StaleSession
from services.nodes.service.deps import SCOPE, Deps
from services.nodes.session import NodeSession, Outgoing, Reply

_log = logger("nodes")
_held = metrics.gauge("grid_nodes_sessions", "Sync streams held by this process.")
_refused = metrics.counter(
    "grid_nodes_reports_refused_total", "Reports that did not fit their lease.", ("why",)
)


class Streams:
    """Asked by the servicer that holds the stream."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        # Node -> session and monotonic time of receipt, since the last flush.
        self._renewals: dict[str, tuple[NodeSession, float]] = {}
        self._renewed = asyncio.Event()

    async def open_session(self, node_id: str, hello: Hello, report: NodeReport) -> NodeSession:
        """A new epoch, which fences all older sessions of the node, and takes over its leases."""

        def work(tx: Tx) -> NodeSession:
            node = self._deps.repository.node(tx, SCOPE, node_id)
            if node is None or node.state is NodeState.REVOKED:
                raise CredentialRefused
            opened = node.session_opened(report.inventory, report.draining, tx.now())
            self._deps.change_node(tx, node, opened)
            self._deps.repository.rebind(tx, SCOPE, node_id, opened.session_epoch)
            session = NodeSession(
                node_id,
                opened.session_epoch,
                self._deps.clock.monotonic(),
                draining=report.draining,
            )
            tx.after_commit(lambda: self._deps.sessions.add(session))
            return session

        session = await retry_stale(lambda: self._deps.database.write(work))
        _held.set(len(self._deps.sessions.all))
        _log.info(
            "node session opened",
            node_id=node_id,
            session_epoch=session.epoch,
            held=len(hello.held_lease_ids),
            daemon_version=hello.daemon_version,
        )
        return session

    def close_session(self, session: NodeSession) -> None:
        """The stream has ended; the node stays online until its deadline."""
        self._deps.sessions.remove(session)
        _held.set(len(self._deps.sessions.all))

    async def record(self, session: NodeSession, report: NodeReport) -> None:
        """Applies one request, renews the node and acknowledges. Raises StaleSession."""
        if session.fenced:
            raise StaleSession
        news = [
            each
            for each in (_within(session, told) for told in report.leases)
            if each.phases or session.is_news(each.lease_id, each.state)
        ]
        if news:
            await self._record_leases(session, news)
        if report.inventory is not None or report.draining != session.draining:
            await self._record_node(session, report)
        self._renewals[session.node_id] = (session, self._deps.clock.monotonic())
        self._renewed.set()
        session.acknowledge(report.seq)

    async def next_reply(self, session: NodeSession) -> Outgoing | None:
        """Waits until there is something to say; None when the stream is to end."""
        while True:
            session.bell.clear()
            if session.error is not None:
                raise session.error
            now = self._deps.clock.monotonic()
            if session.ended or now - session.opened_at > self._deps.config.session_seconds_max:
                return None
            if not session.fenced:
                await self._refresh(session)
            reply = session.plan(
                welcome=self._welcome_due(session, now),
                renew_before=now + self._deps.config.grant_seconds / 3,
            )
            if reply is not None:
                return self._outgoing(session, reply, now)
            await session.bell.wait()

    async def flush_renewals(self) -> None:
        """Writes down when nodes were last heard of, all in one commit. A session whose epoch is
        gone from the table is fenced."""
        batch, self._renewals = self._renewals, {}
        if not batch:
            return

        def work(tx: Tx) -> list[NodeSession]:
            now, monotonic = tx.now(), self._deps.clock.monotonic()
            heard = [
                (node_id, session.epoch, now - timedelta(seconds=monotonic - heard_at))
                for node_id, (session, heard_at) in batch.items()
            ]
            return [batch[each][0] for each in self._deps.repository.renew(tx, SCOPE, heard)]

        try:
            stale = await self._deps.database.write(work)
        except GridError:
            self._renewals = batch | self._renewals
            self._renewed.set()
            raise
        for session in stale:
            session.fence()

    async def keep_renewals(self) -> None:
        """The loop: asleep while no node is heard of."""
        while True:
            await self._renewed.wait()
            self._renewed.clear()
            await self._deps.clock.sleep(self._deps.config.renewal_flush_seconds)
            await self.flush_renewals()

    async def _record_leases(self, session: NodeSession, news: Sequence[Report]) -> None:
        def work(tx: Tx) -> tuple[list[Lease], int]:
            found = [self._record_one(tx, session, each) for each in news]
            return [lease for lease in found if lease is not None], found.count(None)

        leases, refused = await retry_stale(lambda: self._deps.database.write(work))
        for lease in leases:
            session.note(lease)
        if refused:
            session.tell_all()

    def _record_one(self, tx: Tx, session: NodeSession, report: Report) -> Lease | None:
        lease = self._deps.repository.lease(tx, SCOPE, report.lease_id)
        if lease is None or lease.node_id != session.node_id or not lease.open:
            _refused.labels("not_held").inc()
            return None
        if lease.session_epoch != session.epoch:
            raise StaleSession
        try:
            moved = lease.report(report, tx.now())
        except IllegalMove:
            _refused.labels("illegal_move").inc()
            return None
        return self._deps.move(tx, lease, moved)

    async def _record_node(self, session: NodeSession, report: NodeReport) -> None:
        def work(tx: Tx) -> None:
            node = self._deps.repository.node(tx, SCOPE, session.node_id)
            if node is None or node.session_epoch != session.epoch:
                raise StaleSession
            after = node.reported(report.inventory, report.draining)
            if after is not node:
                self._deps.change_node(tx, node, after)

        await retry_stale(lambda: self._deps.database.write(work))
        session.draining = report.draining

    async def sweep(self) -> None:
        """Wakes the sessions whose leases are not as the table has them: a hint was lost, or
        another replica wrote. One read for all of them."""
        if not self._deps.sessions.all:
            return
        held = await self._deps.database.read(
            lambda tx: self._deps.repository.open_versions(tx, SCOPE)
        )
        for node_id, session in self._deps.sessions.all.items():
            if session.versions() != held.get(node_id, {}):
                session.wake()

    async def keep_desired(self) -> None:
        """The loop of `sweep`."""
        while True:
            await self._deps.clock.sleep(self._deps.config.desired_sweep_seconds)
            await self.sweep()

    async def _refresh(self, session: NodeSession) -> None:
        while session.stale:
            session.stale = False
            changes = session.changes
            leases = await self._deps.database.read(
                lambda tx: self._deps.repository.open_leases(tx, SCOPE, session.node_id)
            )
            session.refresh(leases, changes=changes)

    def _welcome_due(self, session: NodeSession, now: float) -> bool:
        half = self._deps.config.session_token_seconds / 2
        return session.welcomed_at is None or now - session.welcomed_at > half

    def _outgoing(self, session: NodeSession, reply: Reply, now: float) -> Outgoing:
        config, wall = self._deps.config, self._deps.clock.now().timestamp()
        token = ""
        if reply.welcome:
            session.welcomed_at = now
            token = self._deps.sign_session(
                session.node_id, session.epoch, wall + config.session_token_seconds
            )
        grants = []
        for lease in reply.grants:
            session.granted[lease.lease_id] = now + config.grant_seconds
            grants.append(
                (lease.lease_id, self._deps.sign_grant(lease, wall + config.grant_seconds))
            )
        return Outgoing(reply, token, tuple(grants))


def _within(session: NodeSession, told: Report) -> Report:
    """A report with as many steps as the node may still tell of the lease."""
    taken = session.fresh_phases(told.lease_id, len(told.phases))
    return told if taken == len(told.phases) else replace(told, phases=told.phases[:taken])
