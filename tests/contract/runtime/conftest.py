"""The three runtimes, for the one suite that all of them must pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from services.node_daemon.runtime.port import Runtime
from tests.support import docker, runtimes


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.Engine]:
    lacking = docker.missing()
    if lacking:
        pytest.skip(lacking)
    with docker.engine() as running:
        yield running


@pytest.fixture
def folders() -> Iterator[runtimes.Folders]:
    made = runtimes.Folders.make()
    yield made
    made.remove()


@pytest_asyncio.fixture(params=["sandbox", "docker", "simulated"])
async def runtime(
    request: pytest.FixtureRequest, folders: runtimes.Folders
) -> AsyncIterator[Runtime]:
    chosen: Runtime
    if request.param == "docker":
        chosen = runtimes.docker(folders, request.getfixturevalue("engine").socket)
    elif request.param == "sandbox":
        chosen = runtimes.sandbox(folders)
    else:
        chosen = runtimes.simulated(folders)
    async with runtimes.opened(chosen):
        assert not await chosen.adopt()
        yield chosen


@pytest_asyncio.fixture
async def sandbox(folders: runtimes.Folders) -> AsyncIterator[Runtime]:
    async with runtimes.opened(runtimes.sandbox(folders)) as chosen:
        yield chosen
