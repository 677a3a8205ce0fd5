"""A planner that believes more than the rows say must not spin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.scheduling.world import World, changed, queued


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    await found.database.start()
    await found.service.load()
    yield found
    await found.database.stop()


async def test_a_placement_that_stays_stale_ends_in_the_planner_being_rebuilt(
    world: World,
) -> None:
    await world.hear(changed(slots=1), "node_1")
    await world.hear(queued(), "job_1")
    assert len(world.placed) == 1
    # A unit of work that was undone for good has left the planner with a hold less.
    world.state.planner.free(world.placed[0].allocations[0].allocation_id)
    world.state.planner.queue.add(world.state.planner.queue.entries.get("none") or _waiting(world))
    for _ in range(10):
        if not await world.service.place_batch():
            break
    else:
        pytest.fail("the loop would never sleep nor sweep again")
