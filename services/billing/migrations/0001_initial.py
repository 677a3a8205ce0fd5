"""The first schema of billing: a frozen copy of its tables, with the ledger's rules as triggers.

The triggers make the database itself refuse a broken ledger: balances move with postings and in no
other way, transfers and postings never change, a hold is resolved once and whole.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
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
    event,
)

from libs.db import JsonText, Tx, UtcTime, outbox_tables

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

# Condition of each refusal, on the new row (or the old one, where there is no new one).
_WRONG_RESOLUTION = """NEW.pending_id IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM transfers AS hold WHERE hold.transfer_id = NEW.pending_id
    AND hold.kind = 'pending' AND hold.amount_micros = NEW.amount_micros
    AND hold.workspace_id = NEW.workspace_id)"""
_TOO_MUCH = """(SELECT sum(amount_micros) FROM postings WHERE transfer_id = NEW.transfer_id)
    > (SELECT amount_micros FROM transfers WHERE transfer_id = NEW.transfer_id)"""
_OPEN_BALANCE = """INSERT INTO balances (account_id, funding, available_micros, version)
    VALUES (NEW.account_id, NEW.kind = 'funding', 0, 1);"""
_MOVE_BALANCES = """UPDATE balances SET available_micros = available_micros - NEW.amount_micros,
    version = version + 1 WHERE account_id = NEW.debit_account;
    UPDATE balances SET available_micros = available_micros + NEW.amount_micros,
    version = version + 1 WHERE account_id = NEW.credit_account;"""
# Name, when, on which table, condition, what it says.
_REFUSALS = (
    ("transfer_resolves_whole", "BEFORE INSERT", "transfers", _WRONG_RESOLUTION, "wrong hold"),
    ("transfer_not_changed", "BEFORE UPDATE", "transfers", "TRUE", "transfers are immutable"),
    ("transfer_not_deleted", "BEFORE DELETE", "transfers", "TRUE", "transfers are immutable"),
    ("posting_not_changed", "BEFORE UPDATE", "postings", "TRUE", "postings are immutable"),
    ("posting_not_deleted", "BEFORE DELETE", "postings", "TRUE", "postings are immutable"),
    ("posting_within", "AFTER INSERT", "postings", _TOO_MUCH, "more than the transfer"),
    ("usage_not_changed", "BEFORE UPDATE", "usage", "TRUE", "usage is immutable"),
)
_EFFECTS = (
    ("account_opens", "AFTER INSERT", "accounts", _OPEN_BALANCE),
    ("posting_moves", "AFTER INSERT", "postings", _MOVE_BALANCES),
)


def _only(dialect: str, text: str) -> DDL:
    statement: DDL = DDL(text).execute_if(dialect=dialect)  # type: ignore[no-untyped-call]
    return statement


def _ddl(name: str, when: str, table: str, condition: str, body: str, refuses: bool) -> list[DDL]:
    """The trigger on both dialects."""
    row = "OLD" if when == "BEFORE DELETE" else "NEW"
    act = f"SELECT RAISE(ABORT, '{body}');" if refuses else body
    raises = f"RAISE EXCEPTION '{body}' USING ERRCODE = '23514';" if refuses else body
    sqlite = (
        f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW WHEN {condition} BEGIN {act} END"
    )
    function = (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF {condition} THEN {raises} END IF; RETURN {row}; END $$"
    )
    trigger = f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
    return [
        _only("sqlite", sqlite),
        _only("postgresql", function),
        _only("postgresql", trigger),
    ]


for _name, _when, _table, _condition, _body in _REFUSALS:
    for _statement in _ddl(_name, _when, _table, _condition, _body, True):
        event.listen(metadata, "after_create", _statement)
for _name, _when, _table, _body in _EFFECTS:
    for _statement in _ddl(_name, _when, _table, "TRUE", _body, False):
        event.listen(metadata, "after_create", _statement)


def upgrade(tx: Tx) -> None:
    """Creates everything."""
    tx.create_all(metadata)
