"""Tables of the logs service.

Lines are stored in chunks, not one row each: a chunk is what one commit brought for one job, so
that ingest costs one row a batch, and its key range answers cursor reads and tails.
"""

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

from libs.db import outbox_tables
from libs.db.types import UtcTime

metadata = MetaData()
outbox_tables(metadata)

job_log = Table(
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

log_chunk = Table(
    "log_chunk",
    metadata,
    Column("workspace_id", String(64), primary_key=True),
    Column("job_id", String(64), primary_key=True),
    # The last entry of the chunk: a read after a cursor seeks to it directly.
    Column("last_entry_id", BigInteger, primary_key=True, autoincrement=False),
    Column("first_entry_id", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("task_index", Integer, nullable=False),
    # Which streams have lines in it, a bit each: a read of one stream skips the others' chunks.
    Column("streams", Integer, nullable=False),
    Column("lines", LargeBinary, nullable=False),
    Column("received_time", UtcTime, nullable=False),
)
