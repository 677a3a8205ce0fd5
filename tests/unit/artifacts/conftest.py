from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.artifacts import world as worlds


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[worlds.World]:
    made = worlds.make(tmp_path)
    await made.start()
    yield made
    await made.stop()
