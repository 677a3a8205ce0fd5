"""The fast path answers what SQLAlchemy's own path answers."""

from __future__ import annotations

import enum
import gc
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import (
    BindParameter,
    Boolean,
    Column,
    Enum,
    Executable,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    func,
    insert,
    null,
    select,
    text,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import (
    IntegrityError,
    InvalidRequestError,
    NoResultFound,
    ResourceClosedError,
    StatementError,
)
from sqlalchemy.pool import StaticPool

from libs.db import Bulk, JsonText, UtcTime
from libs.db.prepared import Plans, Prepared, plan
from libs.telemetry import metrics


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


METADATA = MetaData()
ITEM = Table(
    "item",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, unique=True),
    Column("good", Boolean),
    Column("color", Enum(Color)),
    Column("body", LargeBinary),
    Column("labels", JsonText),
    Column("made_time", UtcTime),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("class", Text),
)
NUMBERED = Table(
    "numbered", METADATA, Column("id", Integer, primary_key=True), Column("n", Integer, default=7)
)
TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
C = ITEM.c
FULL = {
    "id": 1,
    "name": "a",
    "good": True,
    "color": Color.BLUE,
    "body": b"\x00\xff",
    "labels": {"n": [1, None]},
    "made_time": TIME,
    "class": "odd name",
}
BARE = {"id": 2, "name": "b", "labels": None, "made_time": None}
IDS: BindParameter[Any] = bindparam("ids", expanding=True)
OF = C.id == bindparam("of")
ADD_OR_RENAME = sqlite_insert(ITEM)
ADD_OR_RENAME = ADD_OR_RENAME.on_conflict_do_update(
    index_elements=["id"],
    set_={"name": ADD_OR_RENAME.excluded.name, "made_time": bindparam("again", type_=UtcTime)},
    where=C.version == 1,
)
# Statement, parameters, and whether it can be prepared.
CASES: dict[str, tuple[Executable, dict[str, Any] | None, bool]] = {
    "all columns": (select(ITEM).order_by(C.id), None, True),
    "a point": (select(ITEM).where(OF), {"of": 1}, True),
    "nothing found": (select(ITEM).where(OF), {"of": 99}, True),
    "labelled": (select(C.id.label("i"), func.max(C.made_time).label("last")), None, True),
    "no label": (select(func.count()).select_from(ITEM), None, True),
    "limit": (select(C.id).order_by(C.id).limit(bindparam("n")), {"n": 1}, True),
    "written values": (select(C.id).where(C.made_time == TIME, C.color == Color.BLUE), None, True),
    "a written value given anew": (
        select(C.id).where(C.name == bindparam("name", "a")),
        {"name": "b"},
        True,
    ),
    "one name used twice": (
        select(C.id).where((C.id == bindparam("x")) | (C.version == bindparam("x"))),
        {"x": 1},
        True,
    ),
    "a name too many": (select(C.id).where(OF), {"of": 1, "other": 3}, True),
    "union": (union_all(select(C.id, C.name), select(C.version, C.name)), None, True),
    "insert": (insert(ITEM), FULL | {"id": 3, "name": "c"}, True),
    "insert of some": (insert(ITEM), BARE | {"id": 4, "name": "d"}, True),
    "insert of a written value": (insert(ITEM).values(name="w"), {"id": 5}, True),
    "insert or rename": (
        ADD_OR_RENAME,
        {"id": 1, "name": "z", "made_time": TIME, "again": TIME},
        True,
    ),
    "update": (update(ITEM).where(OF), {"of": 1, "good": False, "labels": []}, True),
    "update by itself": (
        update(ITEM).where(OF).values(version=C.version + bindparam("by"), color=null()),
        {"of": 1, "by": 4},
        True,
    ),
    "update of none": (update(ITEM).where(OF).values(name="n"), {"of": 99}, True),
    "returning": (
        update(ITEM).where(C.id > 0).values(good=True).returning(C.id, C.made_time, C.labels),
        None,
        True,
    ),
    "delete": (delete(ITEM).where(OF), {"of": 2}, True),
    "in a list": (select(C.id).where(C.id.in_(IDS)), {"ids": [1, 9, 2]}, True),
    "in a list of one": (select(C.id).where(C.id.in_(IDS)), {"ids": (2,)}, True),
    "in an empty list": (select(C.id).where(C.id.in_(IDS)), {"ids": []}, True),
    "in a very long list": (select(C.id).where(C.id.in_(IDS)), {"ids": list(range(2000))}, True),
    "not in a list": (select(C.id).where(C.id.not_in(IDS)), {"ids": [1, 5, 9]}, True),
    "in a list of times": (
        select(C.id).where(C.made_time.in_(bindparam("at")), C.id == bindparam("of")),
        {"of": 1, "at": [TIME, TIME, TIME]},
        True,
    ),
    "in two lists": (
        delete(ITEM).where(C.id.in_(IDS), C.name.in_(bindparam("names"))).returning(C.id),
        {"names": ["a", "q"], "ids": [1, 2, 3]},
        True,
    ),
    "in a written list": (select(C.id).where(C.color.in_([Color.RED, Color.BLUE])), None, True),
    "in a list of pairs": (
        select(C.id).where(tuple_(C.id, C.name).in_(bindparam("pairs"))),
        {"pairs": [(1, "a")]},
        False,
    ),
    "a Python default": (insert(NUMBERED), {"id": 1}, False),
    "text": (text("SELECT id, name FROM item ORDER BY id"), None, False),
    "an option": (select(C.id).execution_options(marked=True), None, False),
    "a computed value": (
        select(C.id).where(C.id == bindparam("c", callable_=lambda: 1)),
        None,
        False,
    ),
}


@pytest.fixture
def prepared() -> Iterator[Prepared]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.isolation_level = None
        METADATA.create_all(connection)
        for row in (FULL, BARE):
            connection.execute(insert(ITEM), row)
        yield Prepared(connection, raw, Plans(engine.dialect))
    engine.dispose()


def seen(prepared: Prepared, statement: Executable, parameters: Any) -> tuple[Any, ...]:
    """Everything that can be told from one execution, and what it left behind; undone after."""
    prepared._raw.execute("BEGIN")
    answer = prepared.execute(statement, parameters)
    rows = list(answer) if answer.returns_rows else []
    # With RETURNING, SQLAlchemy's is taken before there is a count.
    count = None if rows else answer.rowcount
    left = prepared._raw.execute("SELECT * FROM item ORDER BY id").fetchall()
    prepared._raw.execute("ROLLBACK")
    return [(tuple(row), dict(row._mapping), row._fields) for row in rows], count, left


@pytest.mark.parametrize("name", CASES)
def test_both_paths_answer_the_same(prepared: Prepared, name: str) -> None:
    statement, parameters, fast = CASES[name]
    plain = seen(prepared, statement, parameters)
    names = tuple(parameters or ())
    assert (plan(statement, names, prepared._plans.dialect) is not None) is fast
    assert seen(prepared, statement, parameters) == plain
    assert seen(prepared, statement, parameters) == plain
    found = prepared._plans.find(statement, names)
    assert (found is not None) is fast


WAYS: dict[str, Callable[[Any], Any]] = {
    "one": lambda a: tuple(a.one()),
    "one_or_none": lambda a: a.one_or_none(),
    "first": lambda a: a.first(),
    "scalar": lambda a: a.scalar(),
    "scalar_one": lambda a: a.scalar_one(),
    "scalar_one_or_none": lambda a: a.scalar_one_or_none(),
    "scalars": lambda a: a.scalars().all(),
    "all": lambda a: a.all(),
    "attributes": lambda a: [(row.id, row.made_time, row.name) for row in a],
    "unpacking": lambda a: [(one, rest) for one, *rest in a],
    "by column": lambda a: [(row._mapping[C.id], row._mapping["name"]) for row in a],
    "mappings": lambda a: [dict(row) for row in a.mappings()],
    "first mapping": lambda a: a.mappings().first(),
    "fewer columns": lambda a: [tuple(row) for row in a.columns("made_time", "id")],
    "another column's scalars": lambda a: a.scalars("name").all(),
    "unique": lambda a: a.columns("version").unique().all(),
    "in parts": lambda a: [a.fetchone(), a.fetchmany(1), a.fetchall(), a.fetchone()],
    "piecewise": lambda a: list(a.yield_per(1)),
    "keys": lambda a: list(a.keys()),
    "a wrong name": lambda a: a.first().nothing,
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_results_are_read_the_same(prepared: Prepared, name: str, count: int) -> None:
    statement = select(ITEM).where(C.id <= bindparam("n")).order_by(C.id)

    def read() -> Any:
        try:
            return WAYS[name](prepared.execute(statement, {"n": count}))
        except Exception as error:
            # A name that is not there is worded in fewer words.
            return type(error), "" if isinstance(error, AttributeError) else str(error)

    plain = read()
    assert prepared._plans.find(statement, ("n",)) is not None
    assert read() == plain


def test_errors_are_those_of_sqlalchemy(prepared: Prepared) -> None:
    add, find = insert(ITEM), select(ITEM).where(C.made_time == bindparam("at"))
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the point
    for _ in range(3):
        with pytest.raises(IntegrityError, match="UNIQUE") as caught:
            prepared.execute(add, {"id": 8, "name": "a"})
        assert isinstance(caught.value.orig, sqlite3.IntegrityError)
        with pytest.raises(StatementError, match="aware"):
            prepared.execute(find, {"at": naive})
        with pytest.raises(StatementError, match="required"):
            prepared.execute(find, {})
        with pytest.raises(ResourceClosedError):
            prepared.execute(add.prefix_with("OR IGNORE"), BARE).all()
    renew = update(ITEM).values(good=True)
    for _ in range(3):
        with pytest.raises(ResourceClosedError):
            prepared.execute(renew, None).all()
    with pytest.raises(NoResultFound):
        prepared.execute(select(ITEM).where(OF), {"of": 77}).one()


def test_bulk_changes_rows_and_words_its_errors(prepared: Prepared) -> None:
    add = Bulk(ITEM.insert(), "id", "name", "made_time")
    assert prepared.execute_bulk(add, []) == 0
    assert prepared.execute_bulk(add, [(10, "j", TIME)]) == 1
    assert prepared.execute_bulk(add, [(11, "k", TIME), (12, "l", None)]) == 2
    for rows in [(10, "again", None)], [(13, "m", None), (11, "again", None)]:
        with pytest.raises(IntegrityError):
            prepared.execute_bulk(add, rows)
    found = prepared.execute(select(C.id, C.made_time).where(C.id >= 10).order_by(C.id), None)
    assert [tuple(row) for row in found] == [(10, TIME), (11, TIME), (12, None), (13, None)]


def test_even_rows_are_one_call_of_the_driver(prepared: Prepared) -> None:
    add, raised = insert(ITEM), metrics.value("grid_db_plain_statements_total")
    for n in range(50, 80, 10):
        rows = [{"id": n + k, "name": f"n{n + k}", "made_time": TIME} for k in range(3)]
        assert prepared.execute(add, rows).rowcount == 3
    assert metrics.value("grid_db_plain_statements_total") - raised == 1
    with pytest.raises(IntegrityError):
        prepared.execute(add, rows)
    found = prepared.execute(select(C.made_time).where(C.id >= 50), None).scalars().all()
    assert found == [TIME] * 9


def test_columns_of_one_name_stay_ambiguous(prepared: Prepared) -> None:
    statement = select(C.id, C.version.label("id"))
    for _ in range(3):
        row = prepared.execute(statement, None).first()
        with pytest.raises(InvalidRequestError, match="Ambiguous"):
            row.id  # type: ignore[union-attr]  # noqa: B018


def test_a_list_of_rows_and_other_shapes_of_one_statement(prepared: Prepared) -> None:
    add = insert(ITEM)
    for n in range(20, 24):
        prepared.execute(add, {"id": n, "name": f"n{n}"})
        prepared.execute(add, {"name": f"m{n}", "id": n + 10, "good": True})
        prepared.execute(add, [{"id": n + 20, "name": f"o{n}"}, {"id": n + 30, "name": f"p{n}"}])
    count = select(func.count(), func.sum(C.id)).where(C.id >= 20)
    assert tuple(prepared.execute(count, None).one()) == (16, 584)


def test_a_statement_that_is_gone_is_forgotten(prepared: Prepared) -> None:
    statement: Any = select(C.id)
    for _ in range(2):
        prepared.execute(statement, None).all()
    assert len(prepared._plans._known) == 1
    prepared._connection.engine.clear_compiled_cache()
    del statement
    gc.collect()
    assert prepared._plans._known == {}
