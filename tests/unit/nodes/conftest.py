"""nodes on a real database, with the clock in hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.clock import ManualClock
from libs.db import OutboxEvent, connect
from services.nodes import tables
from services.nodes.config import NodesConfig
from tests.unit.nodes.grid import Grid, new_grid

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config() -> NodesConfig:
    return NodesConfig()


@pytest.fixture
async def grid(tmp_path: Path, config: NodesConfig) -> AsyncIterator[Grid]:
    clock = ManualClock()
    database = connect(
        f"sqlite:///{tmp_path}/nodes.db",
        metadata=tables.metadata,
        migrations=ROOT / "services/nodes/migrations",
        clock=clock,
        service="nodes",
    )
    await database.start()
    told: list[OutboxEvent] = []
    database.on_outbox(told.extend)
    yield new_grid(clock, database, config, told)
    await database.stop()
