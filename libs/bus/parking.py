"""Keys that are set aside, with all their records in order, until someone replays them.

They are rows of the consuming service, so that parking is one commit with the inbox and survives
any restart, and so that replaying is one commit with the effects.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import MetaData, bindparam, delete, func, select

from libs.bus.dispatch import Dispatch
from libs.bus.port import Record
from libs.bus.topics import DEAD_LETTERS
from libs.db import Tx, outbox_tables

_REASON_CHARACTERS_MAX = 500


class Parking:
    """The parked records of one consumer."""

    def __init__(self, metadata: MetaData, consumer: str) -> None:
        self._consumer = consumer
        table = outbox_tables(metadata).parked
        c = table.c
        mine = c.consumer == consumer
        of_key = [mine, c.topic == bindparam("of_topic"), c.key == bindparam("of_key")]
        self._insert = table.insert()
        self._keys = (
            select(c.topic, c.key, func.count()).where(mine).group_by(c.topic, c.key)
        ).order_by(c.topic, c.key)
        self._present = select(c.topic, c.key).where(mine).distinct()
        self._queue = (
            select(c.topic, c.key, c.event_id, c.payload, c.headers)
            .where(*of_key)
            .order_by(c.position)
        )
        self._clear = delete(table).where(*of_key)

    def present(self, tx: Tx) -> set[tuple[str, str]]:
        """The topics and keys that are parked now."""
        return {(topic, key) for topic, key in tx.execute(self._present)}

    def keys(self, tx: Tx) -> list[tuple[str, str, int]]:
        """The parked keys with the number of their records."""
        return [(topic, key, count) for topic, key, count in tx.execute(self._keys)]

    def add(self, tx: Tx, records: Sequence[Record], reason: str) -> None:
        """Appends `records` to their keys' queues."""
        now = tx.now()
        rows = [
            {
                "consumer": self._consumer,
                "event_id": record.event_id,
                "topic": record.topic,
                "key": record.key,
                "payload": record.payload,
                "headers": dict(record.headers),
                "reason": reason[:_REASON_CHARACTERS_MAX],
                "parked_time": now,
            }
            for record in records
        ]
        if rows:
            tx.execute(self._insert, rows)

    def replay(self, tx: Tx, key: tuple[str, str], skip: Sequence[str], dispatch: Dispatch) -> int:
        """Applies the queue of `key` in order and removes it; returns how many were applied."""
        where = {"of_topic": key[0], "of_key": key[1]}
        applied = 0
        for row in tx.execute(self._queue, where).all():
            record = Record(*row)
            if record.event_id in skip:
                continue
            routed = dispatch.route(record)
            if routed is not None:
                routed(tx)
                applied += 1
        tx.execute(self._clear, where)
        return applied


def dead_letter(record: Record, consumer: str, cause: BaseException) -> Record:
    """The notice on `<topic>.dlq`: the record as it was, and who failed on it and why."""
    return Record(
        topic=record.topic + DEAD_LETTERS,
        key=record.key,
        event_id=f"{consumer}:{record.event_id}",
        payload=record.payload,
        headers={
            **record.headers,
            "consumer": consumer,
            "error": repr(cause)[:_REASON_CHARACTERS_MAX],
        },
    )
