"""One statement for many rows, at the driver's price.

SQLAlchemy's executemany builds a dictionary of parameters for every row, which costs several times
what the database takes for it. A Bulk is compiled once per dialect and hands tuples to the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import UpdateBase

Processor = Callable[[Any], Any]
Row = Sequence[Any]


class Bulk:
    """`statement` with the parameters `names`, in the order in which rows give them. For an INSERT
    the names are its columns; otherwise they are its bindparams, all of them."""

    def __init__(self, statement: UpdateBase, *names: str) -> None:
        self._statement = statement
        self._names = names
        self._by_dialect: dict[str, tuple[str, Callable[[Row], Any]]] = {}

    def run(self, connection: Connection, rows: Iterable[Row]) -> int:
        """Executes it for each row; returns the number of rows changed. No rows: nothing."""
        sql, bound = self.prepare(connection.dialect, rows)
        return connection.exec_driver_sql(sql, bound).rowcount if bound else 0

    def prepare(self, dialect: Dialect, rows: Iterable[Row]) -> tuple[str, list[Any]]:
        """The SQL text, and what the driver takes for each row."""
        found = self._by_dialect.get(dialect.name)
        if found is None:
            found = self._by_dialect[dialect.name] = self._compile(dialect)
        sql, bind = found
        return sql, [bind(row) for row in rows]

    def _compile(self, dialect: Dialect) -> tuple[str, Callable[[Row], Any]]:
        compiled = self._statement.compile(dialect=dialect, column_keys=list(self._names))
        processors: dict[str, Any] = dict(compiled._bind_processors)
        used = set(compiled.binds)
        if used != set(self._names):
            raise ValueError(f"the statement has parameters {sorted(used)}, not {self._names}")
        places = {name: place for place, name in enumerate(self._names)}
        if compiled.positiontup is None:
            return str(compiled), _by_name(places, processors)
        order = [(places[name], processors.get(name)) for name in compiled.positiontup]
        return str(compiled), by_position(order)


def by_position(order: Sequence[tuple[int, Processor | None]]) -> Callable[[Row], Any]:
    """Makes the driver's tuple: for each of its places, which value of the row, and how."""
    pick = _pick([place for place, _ in order])
    typed = [(at, process) for at, (_, process) in enumerate(order) if process is not None]
    if not typed:
        return pick

    def bind(row: Row) -> tuple[Any, ...]:
        values = list(pick(row))
        for at, process in typed:
            values[at] = process(values[at])
        return tuple(values)

    return bind


def _pick(places: list[int]) -> Callable[[Row], tuple[Any, ...]]:
    if len(places) > 1:
        return itemgetter(*places)
    return lambda row: tuple([row[place] for place in places])


def _by_name(places: dict[str, int], processors: dict[str, Processor]) -> Callable[[Row], Any]:
    order = [(name, place, processors.get(name)) for name, place in places.items()]
    return lambda row: {
        name: row[place] if process is None else process(row[place])
        for name, place, process in order
    }
