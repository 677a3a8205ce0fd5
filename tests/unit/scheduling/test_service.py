"""Placement on a real database: any order of facts, races, restarts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.common.v1.resources_pb2 import Constraints, Resources
from junglegrid.scheduling.v1 import scheduling_service_pb2 as pb

from libs import failpoints
from libs.db.drift import schema_drift
from libs.errors import GridError
from libs.tenancy import Tenant
from services.scheduling import convert, tables
from services.scheduling.domain import MOVES, EntryState
from services.scheduling.rpc import SchedulingInternalServicer
from tests.unit.scheduling.grids import NOW, planner
from tests.unit.scheduling.grids import node as plain
from tests.unit.scheduling.world import (
    World,
    closed,
    finished,
    node,
    queued,
    stop_requested,
)

WORKSPACE = Tenant("ws_1")


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


async def test_a_job_is_placed_in_the_commit_that_hears_of_it(world: World) -> None:
    await world.hear(node(2), "node_1")
    await world.hear(queued(gpus=1, cpu=500))
    [placed] = world.placed
    [allocation] = placed.allocations
    assert (placed.attempt, placed.reservation_id, placed.timeout_seconds) == (1, "res_1", 600)
    assert placed.price_micros_per_hour == 10
    assert (allocation.node_id, allocation.task_index) == ("node_1", 0)
    assert (allocation.resources.cpu_millis, allocation.resources.gpu.count) == (500, 1)
    assert [gpu.uuid for gpu in allocation.gpus] == ["gpu-0"]
    assert world.told[0].meta.aggregate_id == "job_1"
    assert world.told[0].meta.aggregate_seq == 1
    assert await states(world) == ["placed"]
    assert await world.plan() == 0


async def test_what_does_not_fit_waits_and_is_placed_when_a_lease_closes(world: World) -> None:
    await world.hear(node(1), "node_1")
    await world.hear(queued(gpus=1), "job_1")
    await world.hear(queued(gpus=1), "job_2")
    assert len(world.placed) == 1
    assert await states(world) == ["placed", "waiting"]
    await world.hear(closed(world.placed[0]))
    assert len(world.placed) == 2, "in the commit of the close"
    assert await states(world) == ["placed", "placed"]


async def test_a_lease_closed_twice_frees_once(world: World) -> None:
    await world.hear(node(1), "node_1")
    await world.hear(queued(gpus=1))
    await world.hear(closed(world.placed[0]))
    await world.hear(closed(world.placed[0]))
    assert not await world.rows("SELECT * FROM holds")


async def test_a_cancelled_job_frees_nothing_before_its_lease_closes(world: World) -> None:
    await world.hear(node(1), "node_1")
    await world.hear(queued(gpus=1))
    await world.hear(stop_requested())
    await world.hear(finished())
    await world.hear(queued(gpus=1), "job_2")
    assert len(world.placed) == 1
    await world.hear(closed(world.placed[0]))
    assert len(world.placed) == 2


@pytest.mark.parametrize("order", list(itertools.permutations(["queued", "stop", "finished"])))
@pytest.mark.parametrize("online", [True, False])
async def test_no_order_leaves_a_zombie(
    tmp_path: Path, order: tuple[str, ...], online: bool
) -> None:
    world = World(tmp_path)
    await world.database.start()
    await world.service.load()
    if online:
        await world.hear(node(1), "node_1")
    facts = {"queued": queued(gpus=1), "stop": stop_requested(), "finished": finished()}
    for name in (*order, *order):
        await world.hear(facts[name])
    if not online:
        await world.hear(node(1), "node_1")
    placed = len(world.placed)
    assert await world.plan() == 0
    assert placed <= (1 if online and order[0] == "queued" else 0)
    assert await states(world) == ["ended"]
    assert not world.state.planner.queue.entries
    await world.check()
    await world.database.stop()


async def test_the_next_attempt_waits_again(world: World) -> None:
    await world.hear(node(1), "node_1")
    await world.hear(queued(1, gpus=1))
    await world.hear(queued(2, gpus=1))
    await world.hear(queued(1, gpus=1))
    assert await states(world) == ["waiting"]
    await world.hear(closed(world.placed[0]))
    assert [each.attempt for each in world.placed] == [1, 2]
    assert [each.meta.aggregate_seq for each in world.told] == [1, 2]


async def test_a_stop_of_an_older_attempt_changes_nothing(world: World) -> None:
    await world.hear(queued(2))
    await world.hear(stop_requested(1))
    assert await states(world) == ["waiting"]


async def test_a_restart_goes_on_from_the_tables(world: World) -> None:
    await world.hear(node(2), "node_1")
    await world.hear(queued(gpus=2), "job_1")
    await world.hear(queued(gpus=1), "job_2")
    world.build()
    await world.service.load()
    await world.check()
    assert await world.plan() == 0
    await world.hear(closed(world.placed[0]))
    assert len(world.placed) == 2


async def test_a_gang_is_committed_whole(world: World) -> None:
    await world.hear(node(2), "node_1")
    await world.hear(node(2), "node_2")
    await world.hear(queued(gpus=2, tasks=2))
    [placed] = world.placed
    assert {each.node_id for each in placed.allocations} == {"node_1", "node_2"}
    await world.hear(closed(placed, 0))
    await world.hear(closed(placed, 1))
    assert not await world.rows("SELECT * FROM holds")


async def test_an_older_telling_of_a_node_is_dropped(world: World) -> None:
    await world.hear(node(1), "node_1")
    await world.hear(node(1, state="OFFLINE"), "node_1")
    world.node_seq = 0
    await world.hear(node(1), "node_1")
    await world.hear(queued(gpus=1))
    assert not world.placed


async def test_an_offline_node_keeps_its_holds(world: World) -> None:
    await world.hear(node(2), "node_1")
    await world.hear(queued(gpus=1))
    await world.hear(node(2, state="OFFLINE"), "node_1")
    await world.hear(node(2), "node_1")
    await world.hear(queued(gpus=2), "job_2")
    assert len(world.placed) == 1
    await world.hear(closed(world.placed[0]))
    assert len(world.placed) == 2


async def test_gpus_that_move_in_the_list_stay_held(world: World) -> None:
    await world.hear(node(2), "node_1")
    await world.hear(queued(gpus=1))
    moved = node(2)
    gpus = list(reversed(moved.inventory.gpus))  # type: ignore[attr-defined]
    del moved.inventory.gpus[:]  # type: ignore[attr-defined]
    moved.inventory.gpus.extend(gpus)  # type: ignore[attr-defined]
    await world.hear(moved, "node_1")
    await world.check()
    await world.hear(queued(gpus=1), "job_2")
    uuids = [gpu.uuid for each in world.placed for gpu in each.allocations[0].gpus]
    assert sorted(uuids) == ["gpu-0", "gpu-1"]
    await world.hear(closed(world.placed[0]))


async def test_the_sweep_rebuilds_a_planner_that_missed_a_change(world: World) -> None:
    await world.hear(node(1), "node_1")
    await world.hear(queued(gpus=1))
    [allocation] = world.state.planner.grid.holds
    world.state.planner.free(allocation)
    for _ in range(3):
        await world.service.sweep()
    await world.check()


async def test_the_sweep_forgets_what_has_been_over_for_long(world: World) -> None:
    await world.hear(finished())
    await world.service.sweep()
    assert await states(world) == ["ended"]
    world.clock.advance(world.config.ended_kept_seconds + 1)
    await world.service.sweep()
    assert await states(world) == []


async def test_the_loop_places_when_it_is_woken(world: World) -> None:
    told = asyncio.Event()
    world.database.on_outbox(lambda events: told.set())
    await world.planning.start()
    try:
        await world.hear(queued(gpus=1))
        await world.hear(node(1), "node_1")
        async with asyncio.timeout(5):
            await told.wait()
    finally:
        await world.planning.stop()
    assert len(world.placed) == 1


async def test_quote_and_explain_over_the_door(world: World) -> None:
    await world.hear(node(1, price=1_000_000), "node_1")
    door = SchedulingInternalServicer(world.service, world.clock, no_republish)
    resources = Resources(cpu_millis=1_000)
    resources.gpu.count = 1
    request = pb.QuoteRequest(
        workspace_id="ws_1", resources=resources, constraints=Constraints(), tasks=1
    )
    found = await door.Quote(request, None)
    assert (found.live_candidate_count, found.immediate) == (1, True)
    assert (found.price_micros_per_hour, found.gpu.name) == (1_000_000, "NVIDIA L4")
    assert found.start_time_min.ToDatetime() == world.clock.now().replace(tzinfo=None)
    assert not world.state.planner.grid.holds
    await world.hear(queued(gpus=1), "job_1")
    await world.hear(queued(gpus=1), "job_2")
    asked = pb.ExplainQueueEntryRequest(workspace_id="ws_1", job_id="job_2")
    waiting = await door.ExplainQueueEntry(asked, None)
    assert (waiting.queued, waiting.code) == (True, "NODES_BUSY")
    asked.workspace_id = "ws_2"
    assert not (await door.ExplainQueueEntry(asked, None)).queued
    resources.cpu_millis = -1
    with pytest.raises(GridError):
        await door.Quote(pb.QuoteRequest(resources=resources, constraints=Constraints()), None)


async def no_republish(since: object) -> int:
    return 0


def test_every_move_of_an_entry() -> None:
    for state in EntryState:
        assert (state in MOVES[state]) == (state is EntryState.WAITING)
        assert (EntryState.ENDED in MOVES[state]) == (state is not EntryState.ENDED)


def test_a_run_without_limit_is_placed() -> None:
    fact = queued()
    fact.timeout_seconds = 2**62  # type: ignore[attr-defined]
    entry = convert.entry(EventMeta(workspace_id="w", aggregate_id="j"), fact)  # type: ignore[arg-type]
    found = planner(plain("a")).place(entry, NOW)
    assert found is not None
    assert found.holds[0].end_time > NOW + timedelta(days=365)


async def test_the_migrations_make_what_the_tables_say(world: World) -> None:
    assert await world.database.read(lambda tx: schema_drift(tx, tables.metadata)) == []
