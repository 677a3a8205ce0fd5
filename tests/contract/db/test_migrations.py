"""The schema moves forward, once, whoever starts first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from libs.db import Database, MigrationError
from libs.db.drift import schema_drift
from tests.contract.db.conftest import MIGRATIONS, Store
from tests.contract.db.tables import METADATA

EXTRA = "from sqlalchemy import text\n\ndef upgrade(tx):\n    tx.execute(text({sql!r}))\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "migrations"
    found.mkdir()
    (found / "0001_initial.py").write_text((MIGRATIONS / "0001_initial.py").read_text())
    return found


def write(folder: Path, name: str, sql: str) -> None:
    (folder / name).write_text(EXTRA.format(sql=sql))


async def versions(database: Database) -> list[tuple[int, str]]:
    rows = text("SELECT version, name FROM schema_version ORDER BY version")
    return await database.read(lambda tx: [(v, n) for v, n in tx.execute(rows)])


async def test_each_runs_once(store: Store, folder: Path) -> None:
    for _ in range(2):
        database = store.connect(folder)
        await database.start()
        assert await versions(database) == [(1, "0001_initial")]
        await database.stop()
    write(folder, "0002_more.py", "CREATE TABLE more (id INTEGER PRIMARY KEY)")
    database = store.connect(folder)
    await database.start()
    assert await versions(database) == [(1, "0001_initial"), (2, "0002_more")]
    await database.stop()


async def test_two_processes_may_start_at_once(store: Store) -> None:
    both = [store.connect(), store.connect()]
    await asyncio.gather(*(database.start() for database in both))
    for database in both:
        assert await versions(database) == [(1, "0001_initial")]
        await database.stop()


async def test_a_failing_migration_leaves_the_old_schema(store: Store, folder: Path) -> None:
    write(folder, "0002_more.py", "CREATE TABLE more (id INTEGER PRIMARY KEY)")
    write(folder, "0003_bad.py", "CREATE TABLE more (id INTEGER PRIMARY KEY)")
    with pytest.raises(Exception, match="more"):
        await store.connect(folder).start()
    (folder / "0003_bad.py").unlink()
    database = store.connect(folder)
    await database.start()
    assert [version for version, _ in await versions(database)] == [1, 2]
    await database.stop()


async def test_an_older_release_refuses_a_newer_schema(store: Store, folder: Path) -> None:
    write(folder, "0002_more.py", "CREATE TABLE more (id INTEGER PRIMARY KEY)")
    database = store.connect(folder)
    await database.start()
    await database.stop()
    with pytest.raises(MigrationError, match="is at schema 2, this release knows 1"):
        await store.connect().start()


@pytest.mark.parametrize("name", ["0003_gap.py", "more.py", "0001_again.py"])
async def test_bad_numbers_are_refused(store: Store, folder: Path, name: str) -> None:
    write(folder, name, "SELECT 1")
    with pytest.raises(MigrationError):
        await store.connect(folder).start()


async def test_an_empty_folder_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="no migrations"):
        await store.connect(tmp_path / "nothing").start()


async def test_the_migrated_schema_is_the_one_in_the_code(database: Database) -> None:
    assert await database.read(lambda tx: schema_drift(tx, METADATA)) == []


async def test_drift_is_seen(store: Store, folder: Path) -> None:
    write(folder, "0002_a.py", "ALTER TABLE item ADD COLUMN extra TEXT")
    write(folder, "0003_b.py", "DROP INDEX outbox_created")
    write(folder, "0004_c.py", "CREATE TABLE stray (id INTEGER PRIMARY KEY)")
    write(folder, "0005_d.py", "ALTER TABLE item DROP COLUMN labels")
    database = store.connect(folder)
    await database.start()
    found = await database.read(lambda tx: schema_drift(tx, METADATA))
    await database.stop()
    assert found == [
        "item.extra is not in the code",
        "item.labels is not in the database",
        "outbox: index outbox_created is not in the database",
        "table stray is not in the code",
    ]
