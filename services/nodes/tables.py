"""Tables of nodes."""

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

from libs.db import JsonText, UtcTime, outbox_tables

metadata = MetaData()
outbox = outbox_tables(metadata)

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("prefix", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("provider_id", Text, nullable=False),
    Column("provider_name", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("gpu_price_micros_per_hour", BigInteger, nullable=False),
    Column("cpu_price_micros_per_hour", BigInteger, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("expire_time", UtcTime, nullable=False),
    Column("node_id", Text, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
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
    Column("inventory", JsonText, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("session_epoch", BigInteger, nullable=False),
    # Where the session is held, for ForwardWake between replicas; empty in one process.
    Column("replica_address", Text, nullable=False, default="", server_default=""),
    Column("drained_by_operator", Boolean, nullable=False),
    Column("drained_by_node", Boolean, nullable=False),
    Column("renewed_time", UtcTime),
    Column("lost_time", UtcTime),
    Column("seq", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
)
Index("nodes_state", nodes.c.state, nodes.c.renewed_time)

leases = Table(
    "leases",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("lease_id", Text, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("task_index", Integer, nullable=False),
    Column("allocation_id", Text, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("session_epoch", BigInteger, nullable=False),
    Column("terms", JsonText, nullable=False),
    Column("open_time", UtcTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("claim_epoch", BigInteger, nullable=False),
    Column("reported", Boolean, nullable=False),
    Column("stop_reason", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("claimed_time", UtcTime),
    Column("started_time", UtcTime),
    Column("exited_time", UtcTime),
    Column("closed_time", UtcTime),
    Column("phase_time", UtcTime),
    Column("exit", JsonText),
    Column("outcome", Text),
    Column("version", BigInteger, nullable=False),
)
_OPEN = leases.c.state != "closed"
Index("leases_by_id", leases.c.lease_id, unique=True)
Index("leases_by_allocation", leases.c.allocation_id)
Index(
    "leases_one_open_per_allocation",
    leases.c.allocation_id,
    unique=True,
    sqlite_where=_OPEN,
    postgresql_where=_OPEN,
)
Index("leases_open_by_node", leases.c.node_id, sqlite_where=_OPEN, postgresql_where=_OPEN)
Index("leases_open_by_job", leases.c.job_id, sqlite_where=_OPEN, postgresql_where=_OPEN)
_ASSIGNED = leases.c.state == "assigned"
Index("leases_assigned", leases.c.open_time, sqlite_where=_ASSIGNED, postgresql_where=_ASSIGNED)

# Facts of all leases of a job share one history; its numbers are taken under this row.
lease_histories = Table(
    "lease_histories",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)
