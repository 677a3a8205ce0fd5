"""Rows at the driver's price, the same on every dialect."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, bindparam, create_engine, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from libs.db import Bulk, JsonText, UtcTime

METADATA = MetaData()
ITEM = Table(
    "item",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text),
    Column("labels", JsonText),
    Column("made_time", UtcTime),
)
TIME = datetime(2026, 1, 2, tzinfo=UTC)
INSERT = Bulk(ITEM.insert(), "made_time", "id", "labels", "name")
RENAME = Bulk(
    ITEM.update().where(ITEM.c.id == bindparam("of")).values(name=bindparam("to")), "of", "to"
)


def test_rows_go_in_and_change_with_their_types() -> None:
    with create_engine("sqlite://").connect() as connection:
        METADATA.create_all(connection)
        rows = [(TIME, n, {"n": n}, f"item {n}") for n in range(3)]
        assert INSERT.run(connection, rows) == 3
        assert RENAME.run(connection, [(1, "new"), (9, "none")]) == 1
        assert INSERT.run(connection, []) == 0
        found = connection.execute(select(ITEM).order_by(ITEM.c.id)).all()
        with pytest.raises(IntegrityError):
            INSERT.run(connection, rows)
    assert [tuple(row) for row in found] == [
        (0, "item 0", {"n": 0}, TIME),
        (1, "new", {"n": 1}, TIME),
        (2, "item 2", {"n": 2}, TIME),
    ]


def test_parameters_that_do_not_fit_are_refused() -> None:
    short = Bulk(RENAME._statement, "of")
    with (
        create_engine("sqlite://").connect() as connection,
        pytest.raises(ValueError, match="parameters"),
    ):
        short.run(connection, [(1,)])


def test_a_dialect_with_named_parameters_gets_names() -> None:
    class Connection:
        dialect = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]

        def exec_driver_sql(self, sql: str, rows: list[Any]) -> Any:
            self.sql, self.rows, self.rowcount = sql, rows, len(rows)
            return self

    connection = Connection()
    INSERT.run(connection, [(TIME, 1, {"a": 1}, "x")])  # type: ignore[arg-type]
    assert "%(made_time)s" in connection.sql
    micros = 1767312000000000
    assert connection.rows == [{"made_time": micros, "id": 1, "labels": '{"a":1}', "name": "x"}]
