"""Tables of an imaginary service, for the suite."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, Table, Text

from libs.db import JsonText, UtcTime, outbox_tables

METADATA = MetaData()
ITEM = Table(
    "item",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, unique=True),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("made_time", UtcTime),
    Column("labels", JsonText),
)
OUTBOX = outbox_tables(METADATA)
