"""What other services tell, and what nodes tell: there and back."""

from __future__ import annotations

from junglegrid.common.v1 import event_pb2, resources_pb2
from junglegrid.jobs.v1 import job_event_pb2, job_pb2
from junglegrid.nodes.v1 import lease_pb2
from junglegrid.scheduling.v1 import placement_event_pb2 as placements

from services.nodes import convert
from services.nodes.consumers import handlers
from services.nodes.domain import Closing, LeaseState, Outcome, ProcessExit
from services.nodes.session import Desired, Outgoing, Reply
from tests.unit.nodes.grid import Grid

NEEDS = resources_pb2.Resources(
    cpu_millis=2000,
    memory_bytes=1 << 30,
    disk_bytes=1 << 31,
    gpu=resources_pb2.GpuRequest(
        count=1, memory_bytes_min=20 << 30, gpu_type="l4", gpu_class="datacenter", vendor="nvidia"
    ),
)
GPU = resources_pb2.Gpu(
    index=1, uuid="GPU-1", name="L4", memory_bytes=24 << 30, vendor="nvidia", simulated=False
)


def meta(job_id: str = "job_1") -> event_pb2.EventMeta:
    return event_pb2.EventMeta(aggregate_id=job_id, workspace_id="ws_1")


def placed(*nodes: str) -> placements.PlacementCommitted:
    return placements.PlacementCommitted(
        placement_id="plc_1",
        attempt=1,
        allocations=[
            placements.Allocation(
                allocation_id=f"alc_{index}",
                task_index=index,
                node_id=node_id,
                resources=NEEDS,
                gpus=[GPU],
            )
            for index, node_id in enumerate(nodes)
        ],
        price_micros_per_hour=800_000,
        reservation_id="res_1",
        timeout_seconds=600,
    )


async def apply(grid: Grid, fact: object) -> None:
    handler = handlers(grid.service)[type(fact)]  # type: ignore[index]
    await grid.database.write(lambda tx: handler(tx, meta(), fact))


async def test_a_placement_reaches_the_node_as_it_was_made(grid: Grid) -> None:
    session = await grid.online()
    await apply(grid, placed(session.node_id))
    (lease,) = await grid.leases()
    reply = Reply(True, 1, (Desired.of(lease),), full=True)
    sent = convert.to_sync_response(Outgoing(reply, "jgs_x"), "node_1", 1, grid.deps.config)
    (want,) = sent.leases
    assert want.resources == NEEDS and list(want.gpus) == [GPU]
    assert (want.job_id, want.attempt, want.task_index, want.stop) == ("job_1", 1, 0, False)
    assert sent.welcome.heartbeat_interval.seconds == 5
    opened = grid.facts("opened")[0]
    assert (opened.price_micros_per_hour, opened.reservation_id) == (800_000, "res_1")
    assert list(opened.gpus) == [GPU] and not opened.simulated
    assert opened.lease.allocation_id == "alc_0"


async def test_work_is_simulated_when_a_gpu_of_it_is(grid: Grid) -> None:
    session = await grid.online()
    made_up = placed(session.node_id)
    made_up.allocations[0].gpus[0].simulated = True
    await apply(grid, made_up)
    assert grid.facts("opened")[0].simulated
    cpu_only = placed(session.node_id)
    cpu_only.allocations[0].allocation_id = "alc_cpu"
    cpu_only.allocations[0].ClearField("gpus")
    await apply(grid, cpu_only)
    assert not grid.facts("opened")[1].simulated  # its command runs for real on that node


async def test_each_task_gets_its_own_lease(grid: Grid) -> None:
    first, second = await grid.online(), await grid.online()
    await apply(grid, placed(first.node_id, second.node_id))
    found = {lease.task_index: lease.node_id for lease in await grid.leases()}
    assert found == {0: first.node_id, 1: second.node_id}


async def test_a_stop_has_its_reason_in_words(grid: Grid) -> None:
    session = await grid.online()
    await apply(grid, placed(session.node_id))
    (lease,) = await grid.leases()
    await grid.claim(session, lease)
    stop = job_event_pb2.JobStopRequested(attempt=1, reason=job_pb2.TERMINATION_REASON_DEADLINE)
    await apply(grid, stop)
    assert (await grid.lease(lease.lease_id)).stop_reason == "deadline"


async def test_a_finished_job_stops_only_an_open_lease(grid: Grid) -> None:
    session = await grid.online()
    await apply(grid, placed(session.node_id))
    await apply(grid, job_event_pb2.JobFinished(attempt=1, lease_open=False))
    (lease,) = await grid.leases()
    assert lease.state is LeaseState.ASSIGNED
    await apply(grid, job_event_pb2.JobFinished(attempt=1, lease_open=True))
    assert (await grid.lease(lease.lease_id)).outcome is Outcome.CANCELLED


async def test_the_close_carries_what_billing_and_jobs_need(grid: Grid) -> None:
    session = await grid.online()
    await apply(grid, placed(session.node_id))
    (lease,) = await grid.leases()
    await grid.claim(session, lease)
    grid.clock.advance(7)
    closing = Closing(
        Outcome.EXITED,
        exit=ProcessExit(3, timed_out=True),
        artifacts=2,
        artifact_bytes=99,
        missing_artifacts=("x",),
        runtime="sandbox",
    )
    await grid.service.claims.complete(session.node_id, session.epoch, lease.lease_id, 1, closing)
    (closed,) = grid.facts("closed")
    assert closed.outcome == lease_pb2.LEASE_OUTCOME_EXITED
    assert (closed.exit.code, closed.exit.timed_out) == (3, True)
    assert closed.exited_time.seconds - closed.claimed_time.seconds == 7
    assert (closed.artifacts, closed.artifact_bytes) == (2, 99)
    assert list(closed.missing_artifacts) == ["x"]
    assert (closed.price_micros_per_hour, closed.reservation_id) == (800_000, "res_1")
    assert (closed.runtime, closed.simulated) == ("sandbox", False)
