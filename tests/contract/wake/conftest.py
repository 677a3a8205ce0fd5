"""The wakes that the suite runs on: a new adapter is one more entry of URLS."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from libs.wake import Wake, connect

URLS = {"memory": "memory://"}


@pytest.fixture(params=URLS)
async def wake(request: pytest.FixtureRequest) -> AsyncIterator[Wake]:
    found = connect(URLS[request.param])
    await found.start()
    yield found
    await found.stop()
