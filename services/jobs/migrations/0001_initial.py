"""The first tables. Frozen: a later shape gets a migration of its own."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from libs.db import JsonText, Tx, UtcTime, outbox_tables

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("workspace_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("client_id", Text),
    Column("created_time", UtcTime, nullable=False),
    Column("updated_time", UtcTime, nullable=False),
    Column("submit_until", UtcTime),
    Column("facts", BigInteger, nullable=False),
    Column("activities", Integer, nullable=False),
    Column("spec", JsonText, nullable=False),
    Column("view", JsonText, nullable=False),
    PrimaryKeyConstraint("workspace_id", "job_id"),
)
Index("jobs_id", jobs.c.job_id, unique=True)
Index("jobs_newest", jobs.c.workspace_id, jobs.c.created_time, jobs.c.job_id)
Index("jobs_by_status", jobs.c.workspace_id, jobs.c.status, jobs.c.created_time, jobs.c.job_id)
_named = jobs.c.client_id.is_not(None)
Index(
    "jobs_client_id",
    jobs.c.workspace_id,
    jobs.c.client_id,
    unique=True,
    sqlite_where=_named,
    postgresql_where=_named,
)
_submitting = jobs.c.submit_until.is_not(None)
Index(
    "jobs_submitting",
    jobs.c.submit_until,
    sqlite_where=_submitting,
    postgresql_where=_submitting,
)

attempts = Table(
    "attempts",
    metadata,
    Column("workspace_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("lease_id", Text, nullable=False),
    Column("session_epoch", BigInteger, nullable=False),
    Column("assigned_time", UtcTime, nullable=False),
    Column("claimed_time", UtcTime),
    Column("started_time", UtcTime),
    Column("exited_time", UtcTime),
    Column("finished_time", UtcTime),
    Column("view", JsonText, nullable=False),
    PrimaryKeyConstraint("workspace_id", "job_id", "attempt"),
)
_open = attempts.c.is_open
Index(
    "attempts_one_open",
    attempts.c.workspace_id,
    attempts.c.job_id,
    unique=True,
    sqlite_where=_open,
    postgresql_where=_open,
)

activities = Table(
    "activities",
    metadata,
    Column("workspace_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("phase", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("time", UtcTime, nullable=False),
    PrimaryKeyConstraint("workspace_id", "job_id", "position"),
    sqlite_with_rowid=False,
)

job_secrets = Table(
    "job_secrets",
    metadata,
    Column("workspace_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("environment", LargeBinary),
    Column("callback_token", LargeBinary),
    PrimaryKeyConstraint("workspace_id", "job_id"),
)

submit_keys = Table(
    "submit_keys",
    metadata,
    Column("workspace_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("created_time", UtcTime, nullable=False),
    Column("reply", JsonText),
    PrimaryKeyConstraint("workspace_id", "kind", "value"),
)
Index("submit_keys_job", submit_keys.c.workspace_id, submit_keys.c.job_id)
Index("submit_keys_created", submit_keys.c.created_time)

outbox_tables(metadata)


def upgrade(tx: Tx) -> None:
    tx.create_all(metadata)
