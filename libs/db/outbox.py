"""The tables that tie a service's rows to the bus.

outbox      facts committed here and to be told; `published_time` is NULL until the bus has them
inbox       facts heard here, one row per consumer and event, written with the effect
parked      records of a key whose handler kept failing, in order, until someone replays them
relay       which bus the relay last wrote to, so that it notices when that bus was replaced
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from libs.db.bulk import Bulk, Row
from libs.db.types import JsonText, UtcTime


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """A fact to be told. `topic` is the full name of its message, `key` the aggregate's id, and
    `aggregate_seq` its place in that aggregate's history (1, 2, 3 ...)."""

    event_id: str
    topic: str
    key: str
    aggregate_seq: int
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutboxTables:
    outbox: Table
    inbox: Table
    parked: Table
    relay: Table


def outbox_tables(metadata: MetaData) -> OutboxTables:
    """Adds the four tables to `metadata`, once; a second call returns the same tables.

    Call it in a service's tables.py and, for the frozen copy, in its first migration. The
    definition never changes: a later shape gets a function of its own, so old migrations stay true.
    """
    if "outbox" in metadata.tables:
        found = metadata.tables
        return OutboxTables(found["outbox"], found["inbox"], found["parked"], found["relay"])
    return OutboxTables(_outbox(metadata), _inbox(metadata), _parked(metadata), _relay(metadata))


def _outbox(metadata: MetaData) -> Table:
    table = Table(
        "outbox",
        metadata,
        Column("event_id", Text, primary_key=True),
        Column("topic", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("aggregate_seq", BigInteger, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("headers", JsonText, nullable=False),
        Column("created_time", UtcTime, nullable=False),
        Column("published_time", UtcTime),
        UniqueConstraint("topic", "key", "aggregate_seq", name="outbox_one_per_seq"),
    )
    unpublished = table.c.published_time.is_(None)
    Index(
        "outbox_unpublished",
        table.c.topic,
        table.c.key,
        table.c.aggregate_seq,
        sqlite_where=unpublished,
        postgresql_where=unpublished,
    )
    Index("outbox_created", table.c.created_time)
    return table


def _inbox(metadata: MetaData) -> Table:
    table = Table(
        "inbox",
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("event_id", Text, primary_key=True),
        Column("received_time", UtcTime, nullable=False),
        sqlite_with_rowid=False,
    )
    Index("inbox_received", table.c.received_time)
    return table


def _parked(metadata: MetaData) -> Table:
    table = Table(
        "parked",
        metadata,
        # BIGINT is no rowid alias on SQLite, and `position` has to number itself on both dialects.
        Column("position", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
        Column("consumer", Text, nullable=False),
        Column("event_id", Text, nullable=False),
        Column("topic", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("headers", JsonText, nullable=False),
        Column("reason", Text, nullable=False),
        Column("parked_time", UtcTime, nullable=False),
        UniqueConstraint("consumer", "event_id", name="parked_once"),
    )
    Index("parked_key", table.c.consumer, table.c.topic, table.c.key)
    return table


def _relay(metadata: MetaData) -> Table:
    return Table(
        "relay",
        metadata,
        Column("name", Text, primary_key=True),
        Column("bus_identity", Text, nullable=False),
    )


def outbox_insert(outbox: Table) -> Bulk:
    """Inserts what `outbox_row` makes."""
    return Bulk(
        outbox.insert(),
        "event_id",
        "topic",
        "key",
        "aggregate_seq",
        "payload",
        "headers",
        "created_time",
    )


def outbox_row(event: OutboxEvent, now: datetime) -> Row:
    """The values of one outbox row."""
    return (
        event.event_id,
        event.topic,
        event.key,
        event.aggregate_seq,
        event.payload,
        dict(event.headers),
        now,
    )
