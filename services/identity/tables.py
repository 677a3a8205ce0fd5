"""Tables of identity."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from libs.db.types import JsonText, UtcTime

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("email", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("create_time", UtcTime, nullable=False),
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    UniqueConstraint("account_id", "name"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("prefix", Text, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", JsonText, nullable=False),
    Column("state", Text, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("expire_time", UtcTime),
    Column("revoke_time", UtcTime),
    Column("version", Integer, nullable=False),
)

revocations = Table(
    "revocations",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("workspace_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("revoke_time", UtcTime, nullable=False),
)

# One row. Positions are taken under it, so that a lower one never commits after a higher one, which
# is what a reader that asks for "all after" relies on; a database sequence gives no such promise.
revocation_head = Table(
    "revocation_head",
    metadata,
    Column("head_id", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
)
