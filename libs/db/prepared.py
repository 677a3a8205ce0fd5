"""Statements compiled once and run on the driver. The README argues it ("The fast path").

A statement object that is executed a second time is compiled: SQL text, the order of its
parameters, their processors, the processors of its columns. After that an execution binds a tuple,
runs the cursor and wraps it in SQLAlchemy's own Result and Row. What cannot be done exactly like
that takes SQLAlchemy's path, which also words the errors of parameters; `plan` is the list.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from sqlalchemy import (
    Connection,
    CursorResult,
    Delete,
    Executable,
    Insert,
    SelectBase,
    Update,
)
from sqlalchemy.engine import Dialect, IteratorResult
from sqlalchemy.engine.result import ResultMetaData, SimpleResultMetaData
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.sql.compiler import SQLCompiler

from libs.db.bulk import Bulk, Row, by_position
from libs.db.lists import Lists, each
from libs.telemetry import metrics

_plain = metrics.counter(
    "grid_db_plain_statements_total",
    "Statements that took SQLAlchemy's own path: once per statement object, or not preparable.",
)
# Sets of parameter names per statement; more than that is built per call in some other way.
_SHAPES_MAX = 16


class Rows(IteratorResult[*tuple[Any, ...]]):
    """What the driver answered: SQLAlchemy's Result, with the number of rows changed."""

    # What SQLAlchemy forgets when the columns are narrowed; see `_Columns.make_row`.
    _memoized_keys = frozenset({"_row_getter"})

    def __init__(self, columns: _Columns, rows: Iterator[Any], rowcount: int) -> None:
        super().__init__(columns.metadata, rows)
        self.rowcount = rowcount
        if columns.make_row is not None:
            self.__dict__["_row_getter"] = columns.make_row

    @property
    def returns_rows(self) -> bool:
        """False for a change without RETURNING."""
        return self._metadata is not _NO_COLUMNS.metadata


class _Columns:
    """The columns of a plan. `make_row` is what SQLAlchemy would work out anew for each result."""

    __slots__ = ("make_row", "metadata")

    def __init__(self, metadata: ResultMetaData) -> None:
        self.metadata = metadata
        self.make_row: Any = None
        self.make_row = Rows(self, iter(()), 0)._row_getter


_NO_COLUMNS = _Columns(SimpleResultMetaData(()))
Answer = CursorResult[*tuple[Any, ...]] | Rows


@dataclass(frozen=True, slots=True)
class Plan:
    """One statement with one set of parameters."""

    sql: str
    bind: Callable[[Row], Any]
    # Values that are part of the statement; they stand behind the parameters.
    constants: tuple[Any, ...]
    # None for a statement that returns no rows.
    columns: _Columns | None
    changes: bool
    # Set when some of the values are lists, for IN.
    lists: Lists | None


@dataclass(slots=True)
class _Known:
    statement: weakref.ref[Executable]
    shapes: dict[tuple[str, ...], Plan | None] = field(default_factory=dict)


class Plans:
    """The plans of one database, shared by its connections and threads."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._known: dict[int, _Known] = {}

    def find(self, statement: Executable, names: tuple[str, ...]) -> Plan | None:
        """The plan for `statement` with parameters `names`, or None: take SQLAlchemy's path."""
        known = self._known.get(id(statement))
        if known is None:
            # Most statements that are built per call are never seen again: not worth compiling.
            self._meet(statement)
            return None
        try:
            return known.shapes[names]
        except KeyError:
            if len(known.shapes) >= _SHAPES_MAX:
                return None
            made = known.shapes[names] = plan(statement, names, self.dialect)
            return made

    def _meet(self, statement: Executable) -> None:
        key, known = id(statement), self._known
        # Called before the object's memory, and so its id, can be used again.
        gone = weakref.ref(statement, lambda _: known.pop(key, None))
        known[key] = _Known(gone)


class Prepared:
    """Runs statements on one connection."""

    __slots__ = ("_connection", "_plans", "_raw")

    def __init__(self, connection: Connection, raw: sqlite3.Connection, plans: Plans) -> None:
        self._connection = connection
        self._raw = raw
        self._plans = plans

    def execute(self, statement: Executable, parameters: Any) -> Answer:
        """Like Connection.execute."""
        if parameters is None:
            parameters = {}
        if type(parameters) is dict:
            found = self._plans.find(statement, tuple(parameters))
            if found is not None:
                answer = self._run(found, parameters)
                if answer is not None:
                    return answer
        elif type(parameters) is list and parameters:
            answer = self._run_each(statement, parameters)
            if answer is not None:
                return answer
        _plain.inc()
        return self._connection.execute(statement, parameters)

    def execute_bulk(self, bulk: Bulk, rows: Iterable[Row]) -> int:
        """Like Bulk.run."""
        sql, bound = bulk.prepare(self._plans.dialect, rows)
        if not bound:
            return 0
        try:
            if len(bound) == 1:
                return self._raw.execute(sql, bound[0]).rowcount
            return self._raw.executemany(sql, bound).rowcount
        except sqlite3.Error as error:
            self._raise(sql, bound, error)

    def _run(self, found: Plan, parameters: Mapping[str, Any]) -> Rows | None:
        try:
            sql, bound = found.sql, found.bind((*parameters.values(), *found.constants))
            if found.lists is not None:
                sql, bound = found.lists.flat(bound)
        except Exception:
            # Nothing has run yet: SQLAlchemy meets the same value and says which one it is.
            return None
        try:
            cursor = self._raw.execute(sql, bound)
            if found.columns is None:
                return _no_rows(cursor.rowcount)
            if found.changes:
                # To its end at once: a change under way would hold up the commit.
                rows = cursor.fetchall()
                return Rows(found.columns, iter(rows), cursor.rowcount)
        except sqlite3.Error as error:
            self._raise(sql, bound, error)
        return Rows(found.columns, cursor, cursor.rowcount)

    def _run_each(self, statement: Executable, rows: list[Mapping[str, Any]]) -> Rows | None:
        names = tuple(rows[0])
        found = self._plans.find(statement, names)
        if found is None or found.columns is not None or found.lists is not None:
            return None
        if any(tuple(row) != names for row in rows):
            return None
        try:
            bound = [found.bind((*row.values(), *found.constants)) for row in rows]
        except Exception:
            return None
        try:
            return _no_rows(self._raw.executemany(found.sql, bound).rowcount)
        except sqlite3.Error as error:
            self._raise(found.sql, bound, error)

    def _raise(self, sql: str, bound: Any, error: sqlite3.Error) -> NoReturn:
        raise DBAPIError.instance(
            sql, bound, error, sqlite3.Error, dialect=self._plans.dialect
        ) from error


def _no_rows(rowcount: int) -> Rows:
    """Asking it for rows is an error, as it is in SQLAlchemy."""
    result = Rows(_NO_COLUMNS, iter(()), rowcount)
    result._hard_closed = True
    return result


def plan(statement: Executable, names: tuple[str, ...], dialect: Dialect) -> Plan | None:
    """Compiles `statement`. None when SQLAlchemy does something for it at each execution: text,
    execution options, Python-side defaults, a missing or computed parameter, IN with tuples,
    columns of the same name."""
    if not isinstance(statement, SelectBase | Insert | Update | Delete):
        return None
    if statement.get_execution_options():
        return None
    try:
        compiled = statement.compile(dialect=dialect, column_keys=sorted(names))
    except SQLAlchemyError:
        return None
    if not _plain_sql(compiled):
        return None
    lists = Lists.of(compiled)
    bind, constants = _binder(compiled, names)
    if bind is None or (lists is None and compiled.post_compile_params):
        return None
    columns = None
    if compiled._result_columns:
        columns = _columns(compiled, dialect)
        if columns is None:
            return None
    changes = not isinstance(statement, SelectBase)
    return Plan(compiled.string, bind, constants, columns, changes, lists)


def _plain_sql(compiled: SQLCompiler) -> bool:
    return (
        compiled.positiontup is not None
        and not compiled.literal_execute_params
        and not compiled.escaped_bind_names
        and not compiled.insert_prefetch
        and not compiled.update_prefetch
        and compiled._ordered_columns
        and not compiled._textual_ordered_columns
        and not compiled._loose_column_name_matching
    )


def _binder(
    compiled: SQLCompiler, names: tuple[str, ...]
) -> tuple[Callable[[Row], Any] | None, tuple[Any, ...]]:
    places = {name: place for place, name in enumerate(names)}
    processors: Mapping[str, Any] = compiled._bind_processors
    order: list[tuple[int, Callable[[Any], Any] | None]] = []
    constants: list[Any] = []
    for name in compiled.positiontup or ():
        bound = compiled.binds[name]
        process = processors.get(name)
        if isinstance(process, tuple):
            return None, ()
        if bound.expanding:
            process = each(process)
        place = places.get(bound.key, places.get(name))
        if place is not None:
            order.append((place, process))
        elif bound.required or bound.callable is not None:
            return None, ()
        else:
            order.append((len(names) + len(constants), None))
            constants.append(bound.value if process is None else process(bound.value))
    return by_position(order), tuple(constants)


def _columns(compiled: SQLCompiler, dialect: Dialect) -> _Columns | None:
    entries = compiled._result_columns
    keys = [entry.keyname for entry in entries]
    if len(set(keys)) != len(keys):
        return None
    processors = [entry.type._cached_result_processor(dialect, None) for entry in entries]
    extra = [tuple(o for o in e.objects if o != e.keyname) for e in entries]
    return _Columns(SimpleResultMetaData(keys, extra, _processors=processors))
