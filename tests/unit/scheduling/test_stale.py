"""A planner that believes in more than the rows have must not spin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.scheduling.world import World, closed, node, queued


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    await found.database.start()
    await found.service.load()
    yield found
    await found.database.stop()


async def test_what_stays_stale_rebuilds_the_planner_and_lets_the_loop_rest(world: World) -> None:
    await world.hear(node(1), "node_1")
    await world.hear(queued(gpus=1), "job_1")
    await world.hear(queued(gpus=1), "job_2")
    (first,) = world.placed
    # What a unit of work leaves that was undone for good: the planner has heard of a close that
    # the rows have not.
    world.state.planner.free(first.allocations[0].allocation_id)
    for _ in range(10):
        if not await world.service.place_batch():
            break
    else:
        pytest.fail("the loop would never rest nor sweep again")
    await world.check()
    await world.hear(closed(first), "job_1")
    assert len(world.placed) == 2
