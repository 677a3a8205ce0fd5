"""The buses that the suite runs on: a new adapter is one more entry of STORES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from libs.bus import Bus, connect
from libs.clock import ManualClock


class Store:
    """An empty bus that can be opened again."""

    def __init__(self, url: str, clock: ManualClock) -> None:
        self.url = url
        self.clock = clock

    def connect(self) -> Bus:
        return connect(self.url, clock=self.clock)


def embedded_url(folder: Path) -> str:
    return f"embedded:///{folder}/bus.db"


STORES: dict[str, Callable[[Path], str]] = {"embedded": embedded_url}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(STORES[request.param](tmp_path), ManualClock())


@pytest.fixture
async def bus(store: Store) -> AsyncIterator[Bus]:
    found = store.connect()
    await found.start()
    yield found
    await found.stop()
