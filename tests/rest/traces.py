"""What a workspace has left in the grid: rows in any table of any service, and files."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

# Keys are made by the tests themselves.
IGNORED = {"identity.db/api_keys", "identity.db/revocations"}


def traces(home: Path, workspace_id: str) -> Counter[str]:
    """`service.db/table` -> rows that name the workspace in any column; `files` -> objects."""
    found: Counter[str] = Counter()
    for path in sorted(home.glob("*.db")):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            for table in tables(database):
                count = rows(database, table, workspace_id)
                if count and f"{path.name}/{table}" not in IGNORED:
                    found[f"{path.name}/{table}"] = count
        database.close()
    found["files"] = sum(
        workspace_id in str(path) for path in (home / "objects").rglob("*") if path.is_file()
    )
    found["unfinished files"] = sum(1 for _ in (home / "objects" / "tmp").glob("*"))
    return found


def tables(database: sqlite3.Connection) -> list[str]:
    """The names of all tables."""
    listing = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return [str(name) for (name,) in listing]


def rows(database: sqlite3.Connection, table: str, workspace_id: str) -> int:
    """How many rows hold the id, whole or inside of a longer value, text or bytes."""
    wanted = workspace_id.encode()
    return sum(
        any(wanted in as_bytes(value) for value in row)
        for row in database.execute(f'SELECT * FROM "{table}"')
    )


def as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
