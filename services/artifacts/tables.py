"""Tables of artifacts. `due_time` is when the sweeper has to look at a row; NULL when never."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from libs.db import JsonText, UtcTime, outbox_tables

metadata = MetaData()
outbox_tables(metadata)

inputs = Table(
    "inputs",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("input_id", Text, primary_key=True),
    Column("filename", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("declared_bytes", BigInteger),
    Column("token_digest", LargeBinary, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("slot_expire_time", UtcTime, nullable=False),
    Column("due_time", UtcTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("upload_time", UtcTime),
    Column("used_time", UtcTime),
    Column("object_key", Text),
    Column("size_bytes", BigInteger),
    Column("etag", Text),
    Column("sha256", Text),
    Column("version", BigInteger, nullable=False),
)
Index("inputs_due", inputs.c.due_time)

input_usage = Table(
    "input_usage",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("inputs", Integer, nullable=False),
    Column("pending", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
)

# What is known of a job: which attempt may write, and how much it has.
job_heads = Table(
    "job_heads",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("sealed_attempt", Integer, nullable=False),
    Column("sealed_tasks", JsonText, nullable=False),
    Column("finished", Boolean, nullable=False),
    Column("artifacts", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("due_time", UtcTime),
    Column("tombstone", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
)
_HEAD_DUE = job_heads.c.due_time.is_not(None)
Index("job_heads_due", job_heads.c.due_time, sqlite_where=_HEAD_DUE, postgresql_where=_HEAD_DUE)

artifacts = Table(
    "artifacts",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("artifact_id", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("task_index", Integer, nullable=False),
    Column("filename", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("due_time", UtcTime),
    Column("state", Text, nullable=False),
    Column("ready_time", UtcTime),
    Column("version", BigInteger, nullable=False),
    UniqueConstraint(
        "workspace_id", "job_id", "attempt", "task_index", "filename", name="artifacts_one_per_name"
    ),
)
_ARTIFACT_DUE = artifacts.c.due_time.is_not(None)
Index(
    "artifacts_due",
    artifacts.c.due_time,
    sqlite_where=_ARTIFACT_DUE,
    postgresql_where=_ARTIFACT_DUE,
)
