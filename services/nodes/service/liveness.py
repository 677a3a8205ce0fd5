"""Deadlines, in database time: nodes that are gone, and leases that nobody starts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from libs.db import Tx, retry_stale
from libs.telemetry import logger, metrics
from services.nodes.domain import Closing, Outcome
from services.nodes.service.deps import SCOPE, Deps
from services.nodes.service.leases import close_leases
from services.nodes.service.streams import Streams

_log = logger("nodes")
_lost = metrics.counter("grid_nodes_lost_total", "Nodes that were given up.")
_brake = metrics.gauge(
    "grid_nodes_lost_brake", "1 while too many nodes are silent for any to be given up."
)


@dataclass(frozen=True, slots=True)
class _Round:
    """What one look found; `next` is the earliest deadline that is still to come."""

    lost: int
    silent: int
    braked: bool
    next: datetime | None


class Liveness:
    """Asked by the loop alone."""

    def __init__(self, deps: Deps, streams: Streams) -> None:
        self._deps = deps
        self._streams = streams
        self._recovered: datetime | None = None
        self._expected: tuple[datetime, float] | None = None
        self._braking = False
        # Since when a lease that must stop was seen open; a restart only gives it more time.
        self._stopping: dict[str, datetime] = {}

    async def expire(self) -> float:
        """Gives up what is past its deadline; returns the seconds until the next one.

        Silence while we were down, or stopped, is not a node's fault: deadlines count from the
        moment we were back. And when most nodes fall silent within one window, it is rather we who
        are cut off: none is given up until that has passed (the brake).
        """
        # What was heard counts, also if it is not written down yet.
        await self._streams.flush_renewals()
        self._notice_gap()
        found = await retry_stale(lambda: self._deps.database.write(self._round))
        self._report(found)
        pause = self._pause(found)
        self._expected = (
            self._deps.clock.now() + timedelta(seconds=pause),
            self._deps.clock.monotonic() + pause,
        )
        return pause

    def _notice_gap(self) -> None:
        """Was this process away (stopped, or its clock was set)? Then nodes get a new deadline."""
        now, monotonic = self._deps.clock.now(), self._deps.clock.monotonic()
        if self._expected is not None:
            wall, steady = self._expected
            late = monotonic - steady
            stepped = abs((now - wall).total_seconds() - late)
            if max(late, stepped) <= self._deps.config.heartbeat_seconds:
                return
            _log.warning("time passed without us, deadlines count anew", late_seconds=late)
        self._recovered = now

    def _round(self, tx: Tx) -> _Round:
        now = tx.now()
        length = timedelta(seconds=self._deps.config.lost_seconds)
        live = {
            node_id: self._since(renewed) + length
            for node_id, renewed in self._deps.repository.live_nodes(tx, SCOPE)
        }
        due = [node_id for node_id, deadline in live.items() if deadline <= now]
        braked = self._too_many(tx, len(due), len(live))
        if not braked:
            for node_id in due:
                self._lose(tx, node_id)
        self._close_unclaimed(tx)
        self._stop_overrunning(tx)
        self._overrule(tx)
        coming = [deadline for deadline in live.values() if deadline > now]
        oldest = self._deps.repository.oldest_unclaimed(tx, SCOPE)
        if oldest is not None:
            coming.append(self._since(oldest) + timedelta(seconds=self._deps.config.claim_seconds))
        lost = 0 if braked else len(due)
        return _Round(lost, len(due), braked, min(coming, default=None))

    def _since(self, moment: datetime) -> datetime:
        return moment if self._recovered is None else max(moment, self._recovered)

    def _too_many(self, tx: Tx, due: int, live: int) -> bool:
        config = self._deps.config
        window = tx.now() - timedelta(seconds=config.brake_window_seconds)
        before = self._deps.repository.lost_since(tx, SCOPE, window)
        total = live + before
        return (
            total >= config.brake_nodes_min
            and due > 0
            and ((due + before) / total > config.brake_share)
        )

    def _lose(self, tx: Tx, node_id: str) -> None:
        node = self._deps.repository.node(tx, SCOPE, node_id)
        if node is None or not node.live:
            return
        self._deps.change_node(tx, node, node.lost(tx.now()))
        held = close_leases(self._deps, tx, node, "the node was not heard of until its deadline")
        tx.after_commit(partial(self._deps.sessions.fence, node_id))
        _log.warning("node lost", node_id=node_id, leases=held)

    def _close_unclaimed(self, tx: Tx) -> None:
        now, wait = tx.now(), timedelta(seconds=self._deps.config.claim_seconds)
        if self._recovered is not None and now - self._recovered < wait:
            return
        closing = Closing(Outcome.NODE_REFUSED, message="the node did not ask to start it in time")
        for lease in self._deps.repository.unclaimed(tx, SCOPE, now - wait):
            closed = self._deps.move(tx, lease, lease.close(closing, now))
            tx.after_commit(partial(self._deps.sessions.offer, closed))

    def _stop_overrunning(self, tx: Tx) -> None:
        """A daemon that is heard of but whose attempt outlives its time hangs, or lies: the grid's
        clock ends it. A price limits most attempts sooner; one at no price has only this."""
        now = tx.now()
        patience = timedelta(seconds=self._deps.config.overrun_seconds)
        for lease in self._deps.repository.claimed_before(tx, SCOPE, now - patience):
            allowed = timedelta(seconds=lease.terms.timeout_seconds) + patience
            if lease.claimed_time is None or now - self._since(lease.claimed_time) < allowed:
                continue
            stopped = self._deps.move(tx, lease, lease.request_stop("deadline", now))
            tx.after_commit(partial(self._deps.sessions.offer, stopped))
            _log.error("lease outlived its time", lease_id=lease.lease_id, node_id=lease.node_id)

    def _overrule(self, tx: Tx) -> None:
        """A node that is heard of and does not end what it was told to end hangs, or lies. Its job
        must end all the same."""
        now, patience = tx.now(), timedelta(seconds=self._deps.config.stop_overrule_seconds)
        leases = {lease.lease_id: lease for lease in self._deps.repository.stopping(tx, SCOPE)}
        self._stopping = {each: self._stopping.get(each, now) for each in leases}
        closing = Closing(Outcome.RUNTIME_LOST, message="the node did not end it when told to")
        for lease_id, since in self._stopping.items():
            if now - self._since(since) < patience:
                continue
            lease = leases[lease_id]
            closed = self._deps.move(tx, lease, lease.close(closing, now))
            tx.after_commit(partial(self._deps.sessions.offer, closed))
            _log.error("lease closed over its node", lease_id=lease_id, node_id=lease.node_id)

    def _report(self, found: _Round) -> None:
        _lost.inc(found.lost)
        _brake.set(1 if found.braked else 0)
        if found.braked and not self._braking:
            _log.error("most nodes are silent at once: none is given up", silent=found.silent)
        self._braking = found.braked

    def _pause(self, found: _Round) -> float:
        config = self._deps.config
        if found.braked:
            return config.heartbeat_seconds
        # Nothing that begins after this look can be due sooner.
        longest = min(config.lost_seconds, config.claim_seconds)
        if found.next is None:
            return longest
        left = (found.next - self._deps.clock.now()).total_seconds()
        return min(max(left, 0.0), longest)
