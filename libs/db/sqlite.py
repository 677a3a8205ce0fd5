"""SQLite behind the Database port."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from sqlalchemy import MetaData

from libs.clock import Clock
from libs.db import migrations as schema
from libs.db.committer import Answer
from libs.db.database import OutboxListener
from libs.db.errors import StorageUnavailable, is_fatal, sqlite_code, translate
from libs.db.files import Opened, SqliteFile
from libs.db.outbox import outbox_insert
from libs.db.readers import Readers
from libs.db.tx import Tx
from libs.db.writer import Writer
from libs.telemetry import logger

T = TypeVar("T")
_log = logger("db")
_EXIT_FATAL = 74  # EX_IOERR of sysexits.h


def end_process(error: BaseException) -> NoReturn:
    """After a failed write or fsync nothing the kernel says about the file can be believed, so the
    only safe next step is a new process that recovers from the log."""
    _log.critical("fatal database error, ending the process", error=repr(error))
    os._exit(_EXIT_FATAL)


class SqliteDatabase:
    """See Database for the promises and the README for the reasons.

    With `durable=False` (synchronous=NORMAL) a commit survives the process but not a power cut
    until `sync` has returned; it costs no fsync and is made on the loop.
    """

    def __init__(  # noqa: PLR0913 - what a database is, and two switches with defaults
        self,
        path: Path,
        *,
        metadata: MetaData,
        migrations: Path,
        clock: Clock,
        service: str,
        durable: bool = True,
        fatal: Callable[[BaseException], NoReturn] = end_process,
    ) -> None:
        self._file = SqliteFile(path, durable)
        self._metadata = metadata
        self._service = service
        self._migrations = migrations
        self._clock = clock
        self._durable = durable
        self._fatal = fatal
        outbox = metadata.tables.get("outbox")
        self._outbox = None if outbox is None else outbox_insert(outbox)
        self._listeners: list[OutboxListener] = []
        self._writer: Writer | None = None
        self._readers: Readers | None = None
        self._checkpointing = False

    @property
    def service(self) -> str:
        return self._service

    @property
    def metadata(self) -> MetaData:
        return self._metadata

    async def start(self) -> None:
        opened = self._file.open_writer()
        after_commit = None if self._durable else self._checkpoint
        self._writer = Writer(self._service, opened, self._tx, self._fatal, after_commit)
        for listener in self._listeners:
            self._writer.listen(listener)
        self._readers = Readers(self._file, self._clock, asyncio.get_running_loop())
        found = schema.load(self._migrations)
        try:
            await self.write(lambda tx: schema.upgrade(tx, found, self._service), long=True)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        writer, self._writer = self._writer, None
        readers, self._readers = self._readers, None
        if writer is not None and readers is not None:
            await writer.close()
            await readers.close()
            self._file.close()

    def on_outbox(self, listener: OutboxListener) -> None:
        self._listeners.append(listener)
        if self._writer is not None:
            self._writer.listen(listener)

    async def write(self, work: Callable[[Tx], T], *, long: bool = False) -> T:
        if self._writer is None:
            raise self._closed()
        return await self._writer.write(work, long)

    async def read(self, work: Callable[[Tx], T]) -> T:
        if self._readers is None:
            raise self._closed()
        try:
            return await self._readers.read(work)
        except Exception as error:
            if is_fatal(error):
                self._fatal(error)
            translated = translate(error, self._service)
            # A read that tries to write is a fault of its code, not of the store.
            if translated is error or sqlite_code(error) == sqlite3.SQLITE_READONLY:
                raise
            raise translated from error

    async def sync(self) -> None:
        """Returns when all that has been committed survives a power cut."""
        if self._writer is None:
            raise self._closed()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(answer: Answer[None]) -> None:
            if answer.error is not None:
                self._fatal(answer.error)
            if not future.done():
                future.set_result(None)

        self._writer.thread.submit(self._file.sync, done)
        await future

    def _tx(self, on: Opened) -> Tx:
        return Tx(on.connection, on.prepared, self._clock, self._outbox)

    def _checkpoint(self) -> None:
        if self._writer is None or self._checkpointing:
            return
        if self._file.checkpoint_due():
            self._checkpointing = True
            self._writer.thread.submit(self._file.checkpoint, self._checkpointed)

    def _checkpointed(self, answer: Answer[None]) -> None:
        self._checkpointing = False
        if answer.error is not None and is_fatal(answer.error):
            self._fatal(answer.error)

    def _closed(self) -> StorageUnavailable:
        return StorageUnavailable(
            f"the {self._service} database is not open; try again", retry_after_seconds=1.0
        )
