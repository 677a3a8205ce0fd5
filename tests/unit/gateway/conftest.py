from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.gateway.backend import World, running


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """The gateway over the test contract, with its default settings."""
    # Not tmp_path: a socket's path may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        async with running(Path(folder)) as found:
            yield found
