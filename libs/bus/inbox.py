"""One batch of records in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import MetaData, bindparam, delete, select, tuple_

from libs.bus.dispatch import Dispatch, Routed
from libs.bus.parking import Parking
from libs.bus.port import Record
from libs.db import Bulk, Tx, outbox_tables
from libs.telemetry import metrics

_duplicates = metrics.counter(
    "grid_bus_duplicates_total", "Records dropped because they were applied before.", ("consumer",)
)
_applied = metrics.counter("grid_bus_applied_total", "Records applied.", ("consumer",))
# Longer than any bus keeps records, plus the longest outage to be survived.
_KEPT = timedelta(days=30)
_PURGE_AT_A_TIME = 5_000


class Inbox:
    """What one consumer has applied."""

    def __init__(
        self, metadata: MetaData, consumer: str, dispatch: Dispatch, parking: Parking
    ) -> None:
        self._consumer = consumer
        self._dispatch = dispatch
        self._parking = parking
        table = outbox_tables(metadata).inbox
        c = table.c
        self._known = select(c.event_id).where(
            c.consumer == consumer, c.event_id.in_(bindparam("ids", expanding=True))
        )
        self._insert = Bulk(table.insert(), "consumer", "event_id", "received_time")
        old = (
            select(c.consumer, c.event_id)
            .where(c.received_time < bindparam("before"))
            .limit(_PURGE_AT_A_TIME)
        )
        self._delete = delete(table).where(tuple_(c.consumer, c.event_id).in_(old))
        self._duplicates = _duplicates.labels(consumer)
        self._applied = _applied.labels(consumer)

    def apply(self, tx: Tx, records: Sequence[Record]) -> None:
        """Runs the handlers of those `records` that are new, in order, and notes them. Records of
        parked keys join their queue instead."""
        routed = [found for r in records if (found := self._dispatch.route(r)) is not None]
        if not routed:
            return
        fresh = self._fresh(tx, routed)
        parked = self._parking.present(tx)
        for found in fresh:
            record = found.record
            if (record.topic, record.key) in parked:
                self._parking.add(tx, [record], "its key is parked")
            else:
                found(tx)
        self._note(tx, [found.record for found in fresh])
        applied, duplicates = len(fresh), len(routed) - len(fresh)
        tx.after_commit(lambda: self._count(applied, duplicates))

    def park(self, tx: Tx, records: Sequence[Record], reason: str) -> None:
        """Sets aside records of one key; they count as received."""
        known = self._ids(tx, [record.event_id for record in records])
        fresh = [record for record in records if record.event_id not in known]
        self._parking.add(tx, fresh, reason)
        self._note(tx, fresh)

    def purge(self, tx: Tx) -> bool:
        """Forgets some of what was received more than 30 days ago; True when there may be more."""
        before = {"before": tx.now() - _KEPT}
        return tx.execute(self._delete, before).rowcount == _PURGE_AT_A_TIME

    def _fresh(self, tx: Tx, routed: Sequence[Routed]) -> list[Routed]:
        seen = self._ids(tx, [found.record.event_id for found in routed])
        fresh = []
        for found in routed:
            if found.record.event_id not in seen:
                seen.add(found.record.event_id)
                fresh.append(found)
        return fresh

    def _ids(self, tx: Tx, ids: list[str]) -> set[str]:
        return set(tx.execute(self._known, {"ids": ids}).scalars()) if ids else set()

    def _note(self, tx: Tx, records: Sequence[Record]) -> None:
        if records:
            now = tx.now()
            tx.execute_bulk(self._insert, [(self._consumer, r.event_id, now) for r in records])

    def _count(self, applied: int, duplicates: int) -> None:
        self._applied.inc(applied)
        self._duplicates.inc(duplicates)
