"""The file of a SQLite database: how it is opened, synced and closed."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from libs.db.prepared import Plans, Prepared

_READER_WAIT_MILLISECONDS = 5_000
_OPEN_WAIT_SECONDS = 10.0
_CHECKPOINT_BYTES = 4 << 20


class UnsafeSettings(RuntimeError):
    """SQLite refused a setting that durability rests on."""


class Opened(NamedTuple):
    """A connection: SQLAlchemy's, the driver's beneath it, and what runs statements on it."""

    connection: Connection
    raw: sqlite3.Connection
    prepared: Prepared


class SqliteFile:
    """Opens connections that share one cache of compiled statements."""

    def __init__(self, path: Path, durable: bool) -> None:
        self.path = path
        self._wal = Path(f"{path}-wal")
        self._synchronous = "FULL" if durable else "NORMAL"
        self._engine = create_engine("sqlite://", poolclass=NullPool, creator=self._connect)
        self._plans = Plans(self._engine.dialect)
        self._open: list[tuple[Connection, sqlite3.Connection]] = []

    def open_writer(self) -> Opened:
        """The only connection that changes rows. It never waits for a lock by itself."""
        self._create()
        opened = self._connection()
        raw = opened.raw
        self._set(raw, "journal_mode", "wal", "wal")
        self._set(raw, "synchronous", self._synchronous, 2 if self._synchronous == "FULL" else 1)
        self._set(raw, "foreign_keys", "ON", 1)
        if self._synchronous == "NORMAL":
            # The checkpoint is the only fsync left, and `checkpoint` makes it on a thread.
            self._set(raw, "wal_autocheckpoint", "0", 0)
        raw.execute("PRAGMA busy_timeout=0")
        return opened

    def open_reader(self) -> Opened:
        """A connection that can change nothing."""
        opened = self._connection()
        raw = opened.raw
        self._set(raw, "query_only", "ON", 1)
        raw.execute(f"PRAGMA busy_timeout={_READER_WAIT_MILLISECONDS}")
        return opened

    def sync(self) -> None:
        """Forces the log to the disk. Blocks."""
        if self._wal.exists():
            _fsync(self._wal, os.O_RDWR)

    def checkpoint_due(self) -> bool:
        """True when the log of a NORMAL database has grown enough to be folded in."""
        try:
            return self._wal.stat().st_size > _CHECKPOINT_BYTES
        except FileNotFoundError:
            return False

    def checkpoint(self) -> None:
        """Folds the log into the file and starts it again from its beginning. Blocks."""
        raw = self._connect()
        try:
            raw.execute("PRAGMA synchronous=NORMAL")
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            raw.close()

    def close(self) -> None:
        """Closes every connection; the last one folds the log in."""
        for connection, raw in reversed(self._open):
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            connection.close()
            raw.close()
        self._open.clear()
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """For its dialect and its cache."""
        return self._engine

    def _create(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            # The log and the index take their mode from this file.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            _fsync(self.path.parent, os.O_RDONLY)

    def _connect(self) -> sqlite3.Connection:
        # Transactions are ours to begin and end, and one connection moves between threads that
        # never use it at the same time.
        return sqlite3.connect(
            self.path,
            timeout=_OPEN_WAIT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )

    def _connection(self) -> Opened:
        connection = self._engine.connect()
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        self._open.append((connection, raw))
        return Opened(connection, raw, Prepared(connection, raw, self._plans))

    def _set(self, raw: sqlite3.Connection, name: str, value: str, want: object) -> None:
        raw.execute(f"PRAGMA {name}={value}").close()
        found = raw.execute(f"PRAGMA {name}").fetchone()[0]
        if found != want:
            raise UnsafeSettings(f"{self.path}: {name} is {found!r} and must be {want!r}")


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
