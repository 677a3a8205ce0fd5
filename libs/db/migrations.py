"""Numbered, forward-only changes of a schema: `0001_initial.py` with `def upgrade(tx)`.

All that are missing run in one transaction with the note that they have run, so a crash leaves
either the old schema or the new one. Whoever calls `upgrade` holds the write lock, so a second
process waits and then finds nothing to do.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, Text, func, select

from libs.db.errors import MigrationError
from libs.db.tx import Tx
from libs.db.types import UtcTime

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+")
_METADATA = MetaData()
SCHEMA_VERSION = Table(
    "schema_version",
    _METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("applied_time", UtcTime, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    upgrade: Callable[[Tx], None]


def load(folder: Path) -> list[Migration]:
    """The migrations of `folder`, in order. Raises MigrationError on a gap or a bad file."""
    files = sorted(path for path in folder.glob("*.py") if path.stem != "__init__")
    found = [_load_one(path) for path in files]
    for place, migration in enumerate(found, start=1):
        if migration.version != place:
            raise MigrationError(
                f"{folder}: expected number {place:04d}, found {migration.name}; "
                "numbers start at 0001 and have no gaps"
            )
    if not found:
        raise MigrationError(f"{folder} has no migrations")
    return found


def upgrade(tx: Tx, migrations: list[Migration], service: str) -> int:
    """Runs what is missing; returns how many. The caller holds the database's write lock."""
    if not tx.has_table(SCHEMA_VERSION.name):
        tx.create_all(_METADATA)
    latest = func.coalesce(func.max(SCHEMA_VERSION.c.version), 0)
    present: int = tx.execute(select(latest)).scalar_one()
    if present > len(migrations):
        raise MigrationError(
            f"the {service} database is at schema {present}, this release knows {len(migrations)}; "
            "run the release that made it, or a newer one"
        )
    for migration in migrations[present:]:
        migration.upgrade(tx)
        row = {"version": migration.version, "name": migration.name, "applied_time": tx.now()}
        tx.execute(SCHEMA_VERSION.insert(), row)
    return len(migrations) - present


def _load_one(path: Path) -> Migration:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        raise MigrationError(f"{path} is not named like 0001_initial.py")
    spec = importlib.util.spec_from_file_location(f"migration_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "upgrade", None)):
        raise MigrationError(f"{path} has no function upgrade(tx)")
    return Migration(int(match[1]), path.stem, module.upgrade)
