"""What the relay reads from and writes to its service's tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, null, select, tuple_

from libs.db import Bulk, Database, OutboxEvent, Tx, outbox_tables

Place = tuple[str, str, int]
BEGINNING: Place = ("", "", 0)
_NAME = "relay"
_PAGE = 512
_KEPT = timedelta(days=7)
_PURGE_AT_A_TIME = 5_000


class OutboxRows:
    """The outbox, read in order and marked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        tables = outbox_tables(database.metadata)
        outbox, self._relay = tables.outbox, tables.relay
        c = outbox.c
        order = tuple_(c.topic, c.key, c.aggregate_seq)
        after = tuple_(bindparam("topic"), bindparam("key"), bindparam("seq"))
        self._page = (
            select(c.event_id, c.topic, c.key, c.aggregate_seq, c.payload, c.headers)
            .where(c.published_time.is_(None), order > after)
            .order_by(c.topic, c.key, c.aggregate_seq)
            .limit(_PAGE)
        )
        mark = outbox.update().where(c.event_id == bindparam("id"))
        self._mark = Bulk(mark.values(published_time=bindparam("now")), "now", "id")
        self._unmark = outbox.update().values(published_time=null())
        self._since = c.created_time >= bindparam("since")
        old = (
            select(c.event_id)
            .where(c.created_time < bindparam("before"), c.published_time.is_not(None))
            .limit(_PURGE_AT_A_TIME)
        )
        self._purge = delete(outbox).where(c.event_id.in_(old))

    async def unpublished(self, after: Place) -> list[OutboxEvent]:
        """The next page of facts that the bus does not have, ordered by topic, key and sequence."""
        place = {"topic": after[0], "key": after[1], "seq": after[2]}
        return await self._database.read(
            lambda tx: [OutboxEvent(*row) for row in tx.execute(self._page, place)]
        )

    async def mark(self, event_ids: Sequence[str]) -> None:
        """Notes that the bus has them."""

        def work(tx: Tx) -> None:
            now = tx.now()
            tx.execute_bulk(self._mark, [(now, event_id) for event_id in event_ids])

        await self._database.write(work)

    async def unmark(self, since: datetime) -> int:
        """Makes all facts committed at or after `since` unpublished again; returns how many."""
        statement = self._unmark.where(self._since)
        return await self._database.write(
            lambda tx: tx.execute(statement, {"since": since}).rowcount, long=True
        )

    async def notice_new_bus(self, identity: str) -> bool:
        """True when the bus is another one than last time; then every fact is unpublished again."""

        def work(tx: Tx) -> bool:
            known = tx.execute(select(self._relay.c.bus_identity)).scalar_one_or_none()
            if known == identity:
                return False
            row = {"name": _NAME, "bus_identity": identity}
            if known is None:
                tx.execute(self._relay.insert(), row)
                return False
            tx.execute(self._relay.update().values(row))
            tx.execute(self._unmark)
            return True

        return await self._database.write(work)

    async def purge(self) -> bool:
        """Drops some of the facts that were told more than 7 days ago; True when more may be."""

        def work(tx: Tx) -> int:
            return tx.execute(self._purge, {"before": tx.now() - _KEPT}).rowcount

        return await self._database.write(work, long=True) == _PURGE_AT_A_TIME
