"""Accounts, workspaces, keys and revocations."""

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

from libs.db import Tx

_TABLES = MetaData()

Table(
    "accounts",
    _TABLES,
    Column("account_id", Text, primary_key=True),
    Column("email", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
)
Table(
    "workspaces",
    _TABLES,
    Column("workspace_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    UniqueConstraint("account_id", "name"),
)
Table(
    "api_keys",
    _TABLES,
    Column("workspace_id", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("prefix", Text, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger),
    Column("revoke_time", BigInteger),
    Column("version", Integer, nullable=False),
)
Table(
    "revocations",
    _TABLES,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("workspace_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("revoke_time", BigInteger, nullable=False),
)
_HEAD = Table(
    "revocation_head",
    _TABLES,
    Column("head_id", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
)


def upgrade(tx: Tx) -> None:
    tx.create_all(_TABLES)
    tx.execute(_HEAD.insert().values(head_id=1, position=0))
