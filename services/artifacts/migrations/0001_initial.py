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
    Table,
    Text,
    UniqueConstraint,
)

from libs.db import JsonText, Tx, UtcTime, outbox_tables

_METADATA = MetaData()
outbox_tables(_METADATA)

_INPUTS = Table(
    "inputs",
    _METADATA,
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
Index("inputs_due", _INPUTS.c.due_time)

Table(
    "input_usage",
    _METADATA,
    Column("workspace_id", Text, primary_key=True),
    Column("inputs", Integer, nullable=False),
    Column("pending", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
)

_JOB_HEADS = Table(
    "job_heads",
    _METADATA,
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
_HEAD_DUE = _JOB_HEADS.c.due_time.is_not(None)
Index("job_heads_due", _JOB_HEADS.c.due_time, sqlite_where=_HEAD_DUE, postgresql_where=_HEAD_DUE)

_ARTIFACTS = Table(
    "artifacts",
    _METADATA,
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
_ARTIFACT_DUE = _ARTIFACTS.c.due_time.is_not(None)
Index(
    "artifacts_due",
    _ARTIFACTS.c.due_time,
    sqlite_where=_ARTIFACT_DUE,
    postgresql_where=_ARTIFACT_DUE,
)


def upgrade(tx: Tx) -> None:
    """Creates inputs, heads and artifacts, and the outbox and inbox."""
    tx.create_all(_METADATA)
