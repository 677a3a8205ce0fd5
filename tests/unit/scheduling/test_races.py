"""Undone batches, other schedulers, cancels in between, crashes: what the rows let through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from libs import failpoints
from services.scheduling.errors import StaleNodes
from tests.unit.scheduling.world import World, finished, node, queued


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    await found.database.start()
    await found.service.load()
    yield found
    failpoints.disarm()
    await found.check()
    await found.database.stop()


async def states(world: World) -> list[str]:
    return [row[0] for row in await world.rows("SELECT state FROM entries ORDER BY job_id")]


async def test_a_batch_that_rolls_back_leaves_nothing_behind(world: World) -> None:
    await world.hear(node(1), "node_1")
    bad = queued(gpus=1)

    class Poison(Exception):
        pass

    def poison(*_: object) -> None:
        raise Poison

    world.handlers = {**world.handlers, type(finished()): poison}
    with pytest.raises(Poison):
        await world.hear_all([(bad, "job_1"), (finished(), "job_9")])
    assert not world.placed
    assert not await world.rows("SELECT * FROM holds")
    await world.hear(bad, "job_1")
    assert len(world.placed) == 1


async def test_a_node_that_another_took_is_read_again(world: World) -> None:
    await world.hear(node(1), "node_1")
    await world.execute("UPDATE nodes SET used_gpus = 1")
    await world.hear(queued(gpus=1), "job_1")
    assert not world.placed
    assert await states(world) == ["waiting"]
    assert await world.service.place_batch() == 1, "stale again, dropped, read again"
    assert not world.placed
    await world.execute("UPDATE nodes SET used_gpus = 0")
    await world.hear(node(1), "node_1")
    assert len(world.placed) == 1


async def test_a_gang_of_which_a_node_was_taken_undoes_its_batch(world: World) -> None:
    await world.hear(node(1), "node_1")
    await world.hear(node(1), "node_2")
    await world.execute("UPDATE nodes SET used_gpus = 1 WHERE node_id = 'node_2'")
    with pytest.raises(StaleNodes):
        await world.hear(queued(gpus=1, tasks=2))
    assert not await world.rows("SELECT * FROM holds")
    await world.execute("UPDATE nodes SET used_gpus = 0")
    await world.hear(queued(gpus=1, tasks=2))
    assert len(world.placed) == 1


async def test_two_schedulers_never_give_a_gpu_twice(tmp_path: Path) -> None:
    """Both see two free GPUs, each hears of other jobs; the rows let two through."""
    world = World(tmp_path)
    await world.database.start()
    await world.service.load()
    await world.hear(node(2), "node_1")
    other = World.__new__(World)
    other.__dict__.update(world.__dict__)
    other.build()
    await other.service.load()
    for number in range(3):
        await world.hear(queued(gpus=1), f"job_{number}")
        await other.hear(queued(gpus=1), f"job_{number + 3}")
    await asyncio.gather(world.service.place_batch(), other.service.place_batch())
    holds = await world.rows("SELECT gpu_uuids FROM holds")
    assert len(holds) == len({row[0] for row in holds}) == 2
    assert len(world.placed) == 2
    await world.service.load()
    await world.check()
    await world.database.stop()


async def test_the_loop_goes_on_where_a_batch_stopped(world: World) -> None:
    limited(world)
    for number in range(1, 4):
        await world.hear(queued(gpus=1), f"job_{number}")
    await world.hear(node(3), "node_1")
    assert len(world.placed) == 1
    assert await world.plan() == 2
    assert len(world.placed) == 3


async def test_an_entry_cancelled_during_the_commit_is_not_placed(world: World) -> None:
    limited(world)
    for number in range(1, 4):
        await world.hear(queued(gpus=1), f"job_{number}")
    await world.hear(node(3), "node_1")
    # Its write is queued before the loop's commit, and heard of after the loop has planned.
    cancel = asyncio.create_task(world.hear(finished(), "job_2"))
    await asyncio.sleep(0)
    await world.plan()
    await cancel
    await world.plan()
    assert [each.meta.aggregate_id for each in world.told] == ["job_1", "job_3"]


async def test_a_failed_commit_is_taken_back(world: World) -> None:
    limited(world)
    await world.hear(queued(gpus=1), "job_1")
    await world.hear(queued(gpus=1), "job_2")
    failpoints.arm("scheduling.commit.in_transaction=error")
    with pytest.raises(failpoints.FailpointError):
        await world.hear(node(2), "node_1")
    failpoints.disarm()
    await world.hear(node(2), "node_1")
    assert len(world.placed) == 1
    failpoints.arm("scheduling.commit.in_transaction=error")
    with pytest.raises(failpoints.FailpointError):
        await world.plan()
    failpoints.disarm()
    await world.check()
    assert await world.plan() == 1


async def test_a_crash_after_the_commit_loses_no_placement(world: World) -> None:
    await world.hear(node(1), "node_1")
    failpoints.arm("scheduling.commit.after_commit=delay:1")
    await world.hear(queued(gpus=1))
    failpoints.disarm()
    world.build()
    await world.service.load()
    assert len(world.placed) == 1
    assert await world.rows("SELECT 1 FROM outbox WHERE published_time IS NULL")


def limited(world: World) -> None:
    """One placement a commit, so that the loop has something left to do."""
    world.state.config = replace(world.state.config, placements_per_commit_max=1)
