"""Tables of billing. Balances are moved by the database itself (see the migration's triggers)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

from libs.db import JsonText, UtcTime, outbox_tables

metadata = MetaData()
outbox_tables(metadata)

accounts = Table(
    "accounts",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("currency", Text, nullable=False),
    CheckConstraint(
        "kind IN ('funding', 'wallet', 'held', 'platform', 'payable')", name="account_kind"
    ),
    CheckConstraint("currency = 'USD'", name="account_currency"),
)
Index("accounts_workspace", accounts.c.workspace_id)

balances = Table(
    "balances",
    metadata,
    Column("account_id", Text, ForeignKey("accounts.account_id"), primary_key=True),
    Column("funding", Boolean, nullable=False),
    Column("available_micros", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    CheckConstraint("funding OR available_micros >= 0", name="balance_not_negative"),
)

transfers = Table(
    "transfers",
    metadata,
    Column("transfer_id", Text, primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("period", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    # NULL except for the one transfer that resolves a pending one.
    Column("pending_id", Text, ForeignKey("transfers.transfer_id"), unique=True),
    Column("reservation_id", Text, unique=True),
    Column("amount_micros", BigInteger, nullable=False),
    Column("price_micros_per_hour", BigInteger, nullable=False),
    Column("memo", Text, nullable=False),
    Column("created_time", UtcTime, nullable=False),
    CheckConstraint("kind IN ('pending', 'post', 'void')", name="transfer_kind"),
    CheckConstraint("amount_micros >= 0", name="transfer_amount"),
    CheckConstraint(
        "(kind = 'pending') = (reservation_id IS NOT NULL)", name="transfer_reservation"
    ),
    CheckConstraint(
        "(kind = 'pending' AND pending_id IS NULL) OR (kind = 'void' AND pending_id IS NOT NULL)"
        " OR kind = 'post'",
        name="transfer_pending",
    ),
)
Index("transfers_job", transfers.c.workspace_id, transfers.c.job_id)

postings = Table(
    "postings",
    metadata,
    Column("transfer_id", Text, ForeignKey("transfers.transfer_id"), primary_key=True),
    Column("line", Text, primary_key=True),
    Column("debit_account", Text, ForeignKey("accounts.account_id"), nullable=False),
    Column("credit_account", Text, ForeignKey("accounts.account_id"), nullable=False),
    Column("amount_micros", BigInteger, nullable=False),
    CheckConstraint("amount_micros > 0", name="posting_amount"),
    CheckConstraint("debit_account <> credit_account", name="posting_two_sides"),
)

bills = Table(
    "bills",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("event_seq", BigInteger, nullable=False),
    Column("tasks", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("closed_attempt", Integer, nullable=False),
    Column("awaited_attempt", Integer, nullable=False),
    # [attempt, period, amount, reservation id] of each hold that is not resolved.
    Column("holds", JsonText, nullable=False),
    Column("held_micros", BigInteger, nullable=False),
    Column("total_cost_micros", BigInteger, nullable=False),
    Column("rate_micros_per_hour", BigInteger, nullable=False),
    Column("claimed_attempt", Integer, nullable=False),
    Column("claimed_time", UtcTime),
    Column("exhaust_time", UtcTime),
    Column("finished_time", UtcTime),
    Column("had_hold", Boolean, nullable=False),
    Column("unjudged", Boolean, nullable=False),
    Column("created_time", UtcTime, nullable=False),
    CheckConstraint("held_micros >= 0 AND total_cost_micros >= 0", name="bill_amounts"),
)
_metered = bills.c.exhaust_time.is_not(None)
Index("bills_exhaust", bills.c.exhaust_time, sqlite_where=_metered, postgresql_where=_metered)
_holding = bills.c.held_micros > 0
Index("bills_holding", bills.c.created_time, sqlite_where=_holding, postgresql_where=_holding)

usage = Table(
    "usage",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("lease_id", Text, primary_key=True),
    Column("allocation_id", Text, nullable=False),
    Column("task_index", Integer, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("period", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("ours", Boolean, nullable=False),
    Column("price_micros_per_hour", BigInteger, nullable=False),
    Column("billed_micros", BigInteger, nullable=False),
    Column("metered_micros", BigInteger, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("claimed_time", UtcTime),
    Column("exited_time", UtcTime),
    Column("created_time", UtcTime, nullable=False),
    CheckConstraint("billed_micros >= 0 AND metered_micros >= 0", name="usage_not_negative"),
    sqlite_with_rowid=False,
)
