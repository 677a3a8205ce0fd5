"""The first tables. Frozen: later changes come as later migrations."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from libs.db import Tx, outbox_tables
from libs.db.types import UtcTime


def upgrade(tx: Tx) -> None:
    """Creates the head and the chunks of a log, and the outbox and inbox."""
    metadata = MetaData()
    outbox_tables(metadata)
    Table(
        "job_log",
        metadata,
        Column("workspace_id", String(64), primary_key=True),
        Column("job_id", String(64), primary_key=True),
        Column("status", String(16), nullable=False),
        Column("exit_code", Integer),
        Column("status_attempt", Integer, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("sealed_attempt", Integer, nullable=False),
        Column("lease_open", Boolean, nullable=False),
        Column("cursors", Text, nullable=False),
        Column("next_entry_id", BigInteger, nullable=False),
        Column("size_bytes", BigInteger, nullable=False),
        Column("truncated", Boolean, nullable=False),
        Column("gap", Boolean, nullable=False),
        Column("finished_time", UtcTime),
        Column("version", BigInteger, nullable=False),
        Index("job_log_finished", "finished_time"),
    )
    Table(
        "log_chunk",
        metadata,
        Column("workspace_id", String(64), primary_key=True),
        Column("job_id", String(64), primary_key=True),
        Column("last_entry_id", BigInteger, primary_key=True, autoincrement=False),
        Column("first_entry_id", BigInteger, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("task_index", Integer, nullable=False),
        Column("streams", Integer, nullable=False),
        Column("lines", LargeBinary, nullable=False),
        Column("received_time", UtcTime, nullable=False),
    )
    tx.create_all(metadata)
