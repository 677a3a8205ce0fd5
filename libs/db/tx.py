"""What a unit of work is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Executable, Inspector, MetaData, inspect

from libs.clock import Clock
from libs.db.bulk import Bulk, Row
from libs.db.outbox import OutboxEvent, outbox_row
from libs.db.prepared import Answer, Prepared

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Hook = Callable[[], None]
T = TypeVar("T")


class Tx:
    """One unit of work, valid only inside the function it was given to.

    It is synchronous on purpose: what cannot await cannot hold a lock while a network answers.
    Build statements once, at module level, with `bindparam`: a statement that is built anew for
    every call costs three times its execution.
    """

    __slots__ = (
        "_clock",
        "_connection",
        "_last",
        "_memo",
        "_now",
        "_open",
        "_outbox",
        "_prepared",
        "events",
        "hooks",
    )

    def __init__(
        self, connection: Connection, prepared: Prepared, clock: Clock, outbox: Bulk | None
    ) -> None:
        self._connection = connection
        self._prepared = prepared
        self._clock = clock
        self._outbox = outbox
        self._now: datetime | None = None
        self._open = True
        self._last: list[Hook] = []
        self._memo: dict[object, Any] = {}
        self.events: list[OutboxEvent] = []
        self.hooks: list[Hook] = []

    def execute(self, statement: Executable, parameters: Parameters | None = None) -> Answer:
        """Runs a SQLAlchemy Core statement. Rows must be fetched before the function returns."""
        self._check()
        return self._prepared.execute(statement, parameters)

    def execute_bulk(self, bulk: Bulk, rows: Iterable[Row]) -> int:
        """Runs a prepared statement once per row; returns how many rows it changed."""
        self._check()
        return self._prepared.execute_bulk(bulk, rows)

    def now(self) -> datetime:
        """The database's time, the same for the whole function. SQLite has the injected clock."""
        self._check()
        if self._now is None:
            self._now = self._clock.now()
        return self._now

    def emit(self, event: OutboxEvent) -> None:
        """Tells a fact: its outbox row is in this commit, the bus gets it afterwards."""
        self._check()
        if self._outbox is None:
            raise RuntimeError("emit needs libs.db.outbox_tables in the metadata, and a write")
        self.events.append(event)

    def memo(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gave the first time that this unit of work asked for `key`: an identity map,
        say, that the handlers of one batch share."""
        self._check()
        if key not in self._memo:
            self._memo[key] = make()
        found: T = self._memo[key]
        return found

    def before_commit(self, hook: Hook) -> None:
        """Runs `hook` when the function has returned, still in the unit: it may execute and emit.
        What it raises undoes the unit, like an error of the function."""
        self._check()
        self._last.append(hook)

    def after_commit(self, hook: Hook) -> None:
        """Runs `hook` on the event loop once the commit is durable; not at all otherwise. A hint
        only: a process that dies in between never runs it."""
        self._check()
        self.hooks.append(hook)

    def create_all(self, metadata: MetaData) -> None:
        """Creates the tables and indexes of `metadata`; for migrations."""
        self._check()
        metadata.create_all(self._connection, checkfirst=False)

    def has_table(self, name: str) -> bool:
        """True when the store has a table of that name."""
        return self.inspector().has_table(name)

    def inspector(self) -> Inspector:
        """The schema as the store has it; for migrations and their tests."""
        self._check()
        return inspect(self._connection)

    def flush(self) -> None:
        """Runs what was left for the end and writes the outbox rows; the database calls it when the
        function has returned."""
        for hook in self._last:
            hook()
        if self.events and self._outbox is not None:
            now = self.now()
            self._prepared.execute_bulk(self._outbox, [outbox_row(e, now) for e in self.events])

    def close(self) -> None:
        """Ends its validity; the database calls it, when it has taken `events` and `hooks`. What
        was remembered mostly refers back here: let go, it needs no search for cycles."""
        self._open = False
        self._last.clear()
        self._memo.clear()
        self.events.clear()
        self.hooks.clear()

    def _check(self) -> None:
        if not self._open:
            raise RuntimeError("a Tx was used outside the function that it was given to")
