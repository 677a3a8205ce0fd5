"""What only SQLite has: groups, threads, locks of other processes, full and broken disks."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, select, text

from libs import failpoints
from libs.clock import ManualClock, SystemClock
from libs.db import StorageUnavailable, Tx, connect, group
from libs.db.sqlite import SqliteDatabase
from libs.telemetry import metrics

METADATA = MetaData()
ITEM = Table("item", METADATA, Column("id", Integer, primary_key=True), Column("data", Text))
COUNT = select(func.count()).select_from(ITEM)
MIGRATION = """
from tests.unit.libs.test_db_sqlite import METADATA
def upgrade(tx): tx.create_all(METADATA)
"""
# Counts to n in the engine, without touching Python.
COUNT_TO = text(
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < :n)"
    " SELECT max(i) FROM c"
)

# Work that holds the loop allows one or two.
MANY_TURNS = 20


class Died(BaseException):
    """What a test lets a fatal error do instead of ending the process."""


def die(error: BaseException) -> NoReturn:
    raise Died from error


def open_sqlite(folder: Path, fatal: Callable[[BaseException], NoReturn] = die) -> SqliteDatabase:
    migrations = folder / "migrations"
    migrations.mkdir(exist_ok=True)
    (migrations / "0001_initial.py").write_text(MIGRATION)
    return SqliteDatabase(
        folder / "home" / "x.db",
        metadata=METADATA,
        migrations=migrations,
        clock=ManualClock(),
        service="x",
        fatal=fatal,
    )


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    found = open_sqlite(tmp_path)
    await found.start()
    yield found
    await found.stop()


def add(data: str = "x") -> Callable[[Tx], None]:
    def work(tx: Tx) -> None:
        tx.execute(ITEM.insert(), {"data": data})

    return work


async def count(database: SqliteDatabase) -> int:
    return await database.read(lambda tx: int(tx.execute(COUNT).scalar_one()))


def commits() -> float:
    return metrics.value("grid_db_commits_total", service="x")


async def turns(work: asyncio.Future[Any]) -> int:
    """How often the loop turned while `work` was going on."""
    count = 0
    while not work.done():
        await asyncio.sleep(0)
        count += 1
    return count


def raw(database: SqliteDatabase) -> sqlite3.Connection:
    assert database._writer is not None
    return database._writer._raw


async def test_writes_of_the_same_moment_share_a_commit(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "SLICE_SECONDS", 60.0)
    before = commits()
    await asyncio.gather(*(database.write(add()) for _ in range(group.CALLS_MAX)))
    assert commits() - before == 1
    before = commits()
    await asyncio.gather(*(database.write(add()) for _ in range(2 * group.CALLS_MAX + 1)))
    assert commits() - before == 3


async def test_a_group_does_not_hold_the_loop_for_long(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "SLICE_SECONDS", 0.0)
    before = commits()
    await asyncio.gather(*(database.write(add()) for _ in range(5)))
    assert commits() - before == 5
    assert await count(database) == 5


async def test_the_file_is_private_and_set_for_durability(
    database: SqliteDatabase, tmp_path: Path
) -> None:
    await database.write(add())
    for path in (tmp_path / "home").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
        assert raw(database).execute(f"PRAGMA {name}").fetchone() == (value,)


async def test_a_slow_read_leaves_the_loop_alone(database: SqliteDatabase) -> None:
    def slow(tx: Tx) -> int:
        return int(tx.execute(COUNT_TO, {"n": 3_000_000}).scalar_one())

    for _ in range(2):
        work = asyncio.ensure_future(database.read(slow))
        assert await turns(work) > MANY_TURNS
        assert await work == 3_000_000
    assert await count(database) == 0


async def test_an_interrupted_read_is_not_a_failed_one(database: SqliteDatabase) -> None:
    runs: list[str] = []

    def slow(tx: Tx) -> int:
        runs.append("begun")
        return int(tx.execute(COUNT_TO, {"n": 1_000_000}).scalar_one())

    assert await asyncio.gather(*(database.read(slow) for _ in range(3))) == [1_000_000] * 3
    assert len(runs) == 4


async def test_long_work_leaves_the_loop_alone(database: SqliteDatabase) -> None:
    def bulk(tx: Tx) -> int:
        add()(tx)
        return int(tx.execute(COUNT_TO, {"n": 3_000_000}).scalar_one())

    work = asyncio.ensure_future(database.write(bulk, long=True))
    assert await turns(work) > MANY_TURNS
    assert await work == 3_000_000


async def test_another_process_that_writes_is_waited_for_off_the_loop(
    database: SqliteDatabase, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "home" / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writes = asyncio.gather(*(database.write(add()) for _ in range(3)))
    for _ in range(50):
        await asyncio.sleep(0)
        assert await count(database) == 0
    assert not writes.done()
    other.execute("COMMIT")
    await writes
    assert await count(database) == 3
    other.close()


async def test_a_full_disk_fails_the_write_and_passes(database: SqliteDatabase) -> None:
    await database.write(add())
    pages = raw(database).execute("PRAGMA page_count").fetchone()[0]
    raw(database).execute(f"PRAGMA max_page_count={pages}")
    results = await asyncio.gather(
        *(database.write(add("x" * 50_000 * (n % 2))) for n in range(6)), return_exceptions=True
    )
    kept = 1 + sum(result is None for result in results)
    failed = [result for result in results if result is not None]
    assert failed
    assert all(isinstance(error, StorageUnavailable) for error in failed)
    assert await count(database) == kept
    raw(database).execute("PRAGMA max_page_count=1000000")
    await database.write(add("x" * 50_000))
    assert await count(database) == kept + 1


class Broken:
    """A connection whose COMMIT meets `code`."""

    def __init__(self, raw: sqlite3.Connection, code: int) -> None:
        self._raw, self._code = raw, code

    def execute(self, sql: str) -> Any:
        if sql == "COMMIT":
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = self._code
            raise error
        return self._raw.execute(sql)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


async def test_a_commit_that_finds_no_room_fails_all_and_keeps_nothing(
    database: SqliteDatabase,
) -> None:
    told: list[Any] = []
    writer, real = database._writer, raw(database)
    assert writer is not None

    def hooked(tx: Tx) -> None:
        add()(tx)
        tx.after_commit(lambda: told.append(1))

    writer._raw = Broken(real, sqlite3.SQLITE_FULL)  # type: ignore[assignment]
    results = await asyncio.gather(
        *(database.write(hooked) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [StorageUnavailable] * 3
    writer._raw = real
    assert await count(database) == 0
    await database.write(hooked)
    assert (await count(database), told) == (1, [1])


async def test_after_a_failed_fsync_nobody_is_told_that_all_is_well(tmp_path: Path) -> None:
    died: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def fatal(error: BaseException) -> NoReturn:
        died.set_result(error)
        raise ValueError("the end")

    database = open_sqlite(tmp_path, fatal)
    await database.start()
    writer, real = database._writer, raw(database)
    assert writer is not None
    writer._raw = Broken(real, sqlite3.SQLITE_IOERR_FSYNC)  # type: ignore[assignment]
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    write = asyncio.ensure_future(database.write(add()))
    assert getattr(await died, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_FSYNC
    assert not write.done()
    write.cancel()


async def test_a_lost_answer_is_an_error_though_the_rows_are_there(
    database: SqliteDatabase,
) -> None:
    failpoints.arm("db.after_commit=error")
    with pytest.raises(failpoints.FailpointError):
        await database.write(add())
    failpoints.disarm()
    assert await count(database) == 1
    await database.write(add())


@pytest.mark.parametrize("error", [StopIteration(), GeneratorExit()])
async def test_a_strange_exception_belongs_to_its_caller(
    database: SqliteDatabase, error: BaseException
) -> None:
    def work(tx: Tx) -> None:
        add()(tx)
        raise error

    results = await asyncio.gather(
        database.write(work), database.write(add()), return_exceptions=True
    )
    assert isinstance(results[0], BaseException)
    assert results[1] is None
    assert await count(database) == 1


WRITER = """
import asyncio, resource, signal, sys
from pathlib import Path
from tests.unit.libs.test_db_sqlite import add, open_sqlite
from libs.db.sqlite import end_process

async def main():
    database = open_sqlite(Path(sys.argv[1]), end_process)
    await database.start()
    if sys.argv[2] == "broken":
        # Writing past this size fails with EFBIG, which SQLite reports as an I/O error.
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    async def one(n):
        while True:
            await database.write(add(str(n)))
            print("ok", flush=True)
    await asyncio.gather(*(one(n) for n in range(8)))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
asyncio.run(main())
"""


def writer(folder: Path, mode: str, enough: int) -> tuple[int, int]:
    """Runs WRITER, kills it after `enough` writes if it still lives; returns the number of writes
    it saw acknowledged, and its exit status."""
    command = [sys.executable, "-c", WRITER, str(folder), mode]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = 0
        while acknowledged < enough and child.stdout.readline():
            acknowledged += 1
        if mode == "killed":
            child.send_signal(signal.SIGKILL)
        acknowledged += len(child.stdout.read().splitlines())
        return acknowledged, child.wait()


async def test_a_killed_process_has_kept_all_it_acknowledged(tmp_path: Path) -> None:
    acknowledged, status = await asyncio.to_thread(writer, tmp_path, "killed", 500)
    assert status == -signal.SIGKILL
    database = open_sqlite(tmp_path)
    await database.start()
    # Each of the eight may have been between its commit and its line.
    assert acknowledged <= await count(database) <= acknowledged + 8
    assert raw(database).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    await database.stop()


async def test_a_broken_disk_ends_the_process(tmp_path: Path) -> None:
    acknowledged, status = await asyncio.to_thread(writer, tmp_path, "broken", 1_000_000)
    assert status == 74
    database = open_sqlite(tmp_path)
    await database.start()
    assert acknowledged <= await count(database)
    await database.stop()


def test_urls_of_no_database_are_refused() -> None:
    for url in ("mysql:///x", "sqlite://", "postgresql://user:secret@host/x"):
        with pytest.raises(ValueError, match="not sqlite:///<path>") as refused:
            connect(url, metadata=METADATA, migrations=Path(), clock=SystemClock(), service="x")
        assert "secret" not in str(refused.value)
