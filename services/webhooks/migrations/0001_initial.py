"""The first tables. Frozen: a later shape gets a migration of its own."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from libs.db import Tx, UtcTime, outbox_tables

metadata = MetaData()

deliveries = Table(
    "deliveries",
    metadata,
    Column("workspace_id", Text, nullable=False),
    Column("delivery_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("job_status", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_time", UtcTime, nullable=False),
    Column("due", UtcTime),
    Column("finished_time", UtcTime),
    Column("url", Text, nullable=False),
    Column("body", LargeBinary),
    Column("token", LargeBinary),
    Column("last_status", Integer, nullable=False),
    Column("last_error", Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "delivery_id"),
    UniqueConstraint("workspace_id", "job_id", name="deliveries_one_per_job"),
)
_waiting = deliveries.c.due.is_not(None)
Index("deliveries_due", deliveries.c.due, sqlite_where=_waiting, postgresql_where=_waiting)
Index("deliveries_finished", deliveries.c.finished_time)

outbox_tables(metadata)


def upgrade(tx: Tx) -> None:
    tx.create_all(metadata)
