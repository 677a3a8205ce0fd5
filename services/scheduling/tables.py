"""Tables of scheduling. What a node has left is in its row, so that a commit can check it there."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

from libs.db import JsonText, UtcTime, outbox_tables

metadata = MetaData()
outbox_tables(metadata)

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("event_seq", BigInteger, nullable=False),
    # Rises with every change of what the node offers; not with what is held.
    Column("version", BigInteger, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("region", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("runtimes", JsonText, nullable=False),
    Column("gpus", JsonText, nullable=False),
    Column("cpu_millis", BigInteger, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("gpu_price", BigInteger, nullable=False),
    Column("cpu_price", BigInteger, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("used_cpu_millis", BigInteger, nullable=False),
    Column("used_memory_bytes", BigInteger, nullable=False),
    Column("used_disk_bytes", BigInteger, nullable=False),
    Column("used_slots", Integer, nullable=False),
    # One bit a GPU, by its place in `gpus`.
    Column("used_gpus", BigInteger, nullable=False),
    CheckConstraint(
        "used_cpu_millis >= 0 AND used_memory_bytes >= 0 AND used_disk_bytes >= 0"
        " AND used_slots >= 0 AND used_gpus >= 0",
        name="node_used",
    ),
)

holds = Table(
    "holds",
    metadata,
    Column("allocation_id", Text, primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("task_index", Integer, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("cpu_millis", BigInteger, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("gpu_uuids", JsonText, nullable=False),
    Column("gpu_mask", BigInteger, nullable=False),
    Column("placed_time", UtcTime, nullable=False),
    Column("end_time", UtcTime, nullable=False),
)
Index("holds_node", holds.c.node_id)

entries = Table(
    "entries",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("event_seq", BigInteger, nullable=False),
    Column("needs", JsonText),
    Column("submitted_time", UtcTime),
    Column("changed_time", UtcTime, nullable=False),
    CheckConstraint(
        "state IN ('waiting', 'placed', 'stopped', 'ended')",
        name="entry_state",
    ),
    CheckConstraint(
        "state <> 'waiting' OR (needs IS NOT NULL AND submitted_time IS NOT NULL)",
        name="entry_waits_for_something",
    ),
)
_waiting = entries.c.state == "waiting"
Index("entries_waiting", entries.c.submitted_time, sqlite_where=_waiting, postgresql_where=_waiting)
_over = (entries.c.state == "ended") | (entries.c.state == "stopped")
Index("entries_over", entries.c.changed_time, sqlite_where=_over, postgresql_where=_over)
