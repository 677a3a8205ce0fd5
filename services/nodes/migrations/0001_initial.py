"""Nodes, enrolment tokens, leases and their histories."""

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
)

from libs.db import Tx, outbox_tables

_TABLES = MetaData()
outbox_tables(_TABLES)

Table(
    "enrolment_tokens",
    _TABLES,
    Column("prefix", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("provider_id", Text, nullable=False),
    Column("provider_name", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("gpu_price_micros_per_hour", BigInteger, nullable=False),
    Column("cpu_price_micros_per_hour", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    Column("node_id", Text, nullable=False),
)

_NODES = Table(
    "nodes",
    _TABLES,
    Column("node_id", Text, primary_key=True),
    Column("prefix", Text, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),
    Column("provider_id", Text, nullable=False),
    Column("provider_name", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("gpu_price_micros_per_hour", BigInteger, nullable=False),
    Column("cpu_price_micros_per_hour", BigInteger, nullable=False),
    Column("inventory", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("session_epoch", BigInteger, nullable=False),
    Column("replica_address", Text, nullable=False, default="", server_default=""),
    Column("drained_by_operator", Boolean, nullable=False),
    Column("drained_by_node", Boolean, nullable=False),
    Column("renewed_time", BigInteger),
    Column("lost_time", BigInteger),
    Column("seq", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
)
Index("nodes_state", _NODES.c.state, _NODES.c.renewed_time)

_LEASES = Table(
    "leases",
    _TABLES,
    Column("workspace_id", Text, primary_key=True),
    Column("lease_id", Text, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("task_index", Integer, nullable=False),
    Column("allocation_id", Text, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("session_epoch", BigInteger, nullable=False),
    Column("terms", Text, nullable=False),
    Column("open_time", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("claim_epoch", BigInteger, nullable=False),
    Column("reported", Boolean, nullable=False),
    Column("stop_reason", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("claimed_time", BigInteger),
    Column("started_time", BigInteger),
    Column("exited_time", BigInteger),
    Column("closed_time", BigInteger),
    Column("phase_time", BigInteger),
    Column("exit", Text),
    Column("outcome", Text),
    Column("version", BigInteger, nullable=False),
)
_OPEN = _LEASES.c.state != "closed"
Index("leases_by_id", _LEASES.c.lease_id, unique=True)
Index("leases_by_allocation", _LEASES.c.allocation_id)
Index(
    "leases_one_open_per_allocation",
    _LEASES.c.allocation_id,
    unique=True,
    sqlite_where=_OPEN,
    postgresql_where=_OPEN,
)
Index("leases_open_by_node", _LEASES.c.node_id, sqlite_where=_OPEN, postgresql_where=_OPEN)
Index("leases_open_by_job", _LEASES.c.job_id, sqlite_where=_OPEN, postgresql_where=_OPEN)
_ASSIGNED = _LEASES.c.state == "assigned"
Index("leases_assigned", _LEASES.c.open_time, sqlite_where=_ASSIGNED, postgresql_where=_ASSIGNED)

Table(
    "lease_histories",
    _TABLES,
    Column("workspace_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)


def upgrade(tx: Tx) -> None:
    tx.create_all(_TABLES)
