"""What a database can answer besides rows."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError

from libs.errors import Unavailable


class StorageUnavailable(Unavailable):
    """The store could not take or give data now: its disk is full, it is locked by someone else, or
    it is stopping. Nothing of the function that got this error was kept; the same call may succeed
    later."""


class MigrationError(Exception):
    """The schema cannot be brought to what this release needs; the message says why."""


_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_CLOSED = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
}
# After these the file's contents are not known any more, and going on could tell a caller that
# something is durable when it is not: see "Fatal errors" in the README.
_FATAL = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def sqlite_code(error: BaseException) -> int | None:
    """SQLite's extended result code behind `error`, or None when SQLite did not raise it."""
    if isinstance(error, DBAPIError):
        return sqlite_code(error.orig) if error.orig is not None else None
    return getattr(error, "sqlite_errorcode", None)


def is_busy(error: BaseException) -> bool:
    """True when another process holds the lock."""
    code = sqlite_code(error)
    return code is not None and code & 0xFF in _BUSY


def is_fatal(error: BaseException) -> bool:
    """True when the process must end rather than trust the file again."""
    code = sqlite_code(error)
    return code is not None and code not in _FULL and code & 0xFF in _FATAL


def translate(error: BaseException, service: str) -> BaseException:
    """StorageUnavailable for failures of the store, with a message that says what to do; every
    other error (of the function, of a constraint) as it is."""
    code = sqlite_code(error)
    if code is None:
        return error
    if code in _FULL:
        message = f"the disk under the {service} database is full; free space, then try again"
    elif code & 0xFF in _BUSY:
        message = f"the {service} database is locked by another process; try again"
    elif code & 0xFF in _CLOSED:
        message = f"the {service} database cannot be opened for writing; check its folder's rights"
    else:
        return error
    unavailable = StorageUnavailable(message, retry_after_seconds=1.0)
    unavailable.__cause__ = error
    return unavailable
