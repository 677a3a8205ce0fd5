"""The databases that the suite runs on: a new adapter is one more entry of STORES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from libs.clock import ManualClock
from libs.db import Database, connect
from tests.contract.db.tables import METADATA

MIGRATIONS = Path(__file__).parent / "migrations"


class Store:
    """An empty database that can be opened more than once."""

    def __init__(self, url: str, clock: ManualClock) -> None:
        self.url = url
        self.clock = clock

    def connect(self, migrations: Path = MIGRATIONS) -> Database:
        return connect(
            self.url,
            metadata=METADATA,
            migrations=migrations,
            clock=self.clock,
            service="contract",
        )


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder}/contract.db"


STORES: dict[str, Callable[[Path], str]] = {"sqlite": sqlite_url}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Store:
    return Store(STORES[request.param](tmp_path), clock)


@pytest.fixture
async def database(store: Store) -> AsyncIterator[Database]:
    found = store.connect()
    await found.start()
    yield found
    await found.stop()
