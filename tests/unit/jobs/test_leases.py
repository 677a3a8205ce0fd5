"""A job through its leases: events, retries, ends, races, money."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import Message
from junglegrid.billing.v1 import billing_event_pb2 as billing_pb
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1 import job_pb2
from junglegrid.nodes.v1 import lease_pb2
from junglegrid.nodes.v1 import node_event_pb2 as nodes_pb
from sqlalchemy.exc import IntegrityError

from libs import failpoints
from libs.db import Tx
from services.jobs.domain.activity import public_id, sequence
from services.jobs.domain.job import Hold
from services.jobs.domain.states import AttemptState, Reason, Status
from services.jobs.errors import AlreadyFinal, LaunchRefused
from tests.unit.jobs.world import SECRETIVE, WORKSPACE, World, ended, lease, lost

LOST = lease_pb2.LEASE_OUTCOME_NODE_LOST


async def test_a_job_runs_to_its_end(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    job = await world.job(job_id)
    assert job.status is Status.ASSIGNED
    assert job.placement is not None
    assert (job.placement.node_id, job.placement.provider) == ("node_1", "acme")
    await world.claim(job_id)
    await world.start(job_id, phases=("container_starting", "image_download", "notice"))
    assert (await world.job(job_id)).status is Status.RUNNING
    await world.pass_time(2)
    await world.exit(job_id)
    await world.close(job_id, ended(job_id))
    await world.settle(job_id, 1234)
    job = await world.job(job_id)
    assert (job.status, job.exit_code, job.artifacts_ready) == (Status.COMPLETED, 0, True)
    assert (job.cost.total, job.hold.amount) == (1234, 0)
    assert await world.names(job_id) == [
        "submitted", "queued", "assigned", "container_starting", "image_download", "notice",
        "running", "cleanup", "completed",
    ]  # fmt: skip
    (finished,) = world.facts("finished")
    assert finished.status == job_pb2.JOB_STATUS_COMPLETED
    assert finished.exit_code == 0
    assert not finished.has_callback
    assert [each.meta.aggregate_seq for each in world.told] == [1, 2]


async def test_a_batch_leaves_what_its_facts_would_have_left_one_by_one(world: World) -> None:
    one, batched = (await world.submit()).job_id, (await world.submit()).job_id
    for fact in story(one, world):
        await world.hear(fact, one)

    def hear_all(tx: Tx) -> None:
        for fact in story(batched, world):
            meta = EventMeta(aggregate_id=batched, workspace_id="ws_1")
            world.handlers[type(fact)](tx, meta, fact)

    await world.database.write(hear_all)
    shown = [await world.service.read.get_job(WORKSPACE, job_id) for job_id in (one, batched)]
    jobs = [
        replace(each.job, job_id="", hold=Hold(), version=0, spec=shown[0].job.spec)
        for each in shown
    ]
    assert jobs[0] == jobs[1]
    attempts = [[replace(each, job_id="") for each in detail.attempts] for detail in shown]
    assert attempts[0] == attempts[1]
    assert await world.names(one) == await world.names(batched)
    for job_id in (one, batched):
        told = [each for each in world.told if each.meta.aggregate_id == job_id]
        assert [each.WhichOneof("fact") for each in told] == ["queued", "queued", "finished"]
        assert [each.meta.aggregate_seq for each in told] == [1, 2, 3]


def story(job_id: str, world: World) -> list[Message]:
    """Lost once, then run to its end."""
    facts: list[Any] = [
        nodes_pb.LeaseOpened(lease=lease(job_id)),
        nodes_pb.LeaseClaimed(lease=lease(job_id)),
        lost(job_id),
        nodes_pb.LeaseOpened(lease=lease(job_id, 2)),
        nodes_pb.LeaseClaimed(lease=lease(job_id, 2)),
        nodes_pb.LeaseStarted(lease=lease(job_id, 2), runtime="sandbox"),
        nodes_pb.LeaseExited(lease=lease(job_id, 2), exit=lease_pb2.ProcessExit()),
        ended(job_id, attempt=2),
        billing_pb.AttemptSettled(attempt=2, total_cost_micros=5),
    ]
    for fact in facts:
        for name in ("claimed_time", "started_time", "exited_time", "closed_time"):
            if name in fact.DESCRIPTOR.fields_by_name and "Settled" not in type(fact).__name__:
                getattr(fact, name).FromDatetime(world.clock.now())
    return facts


async def test_events_are_numbered_in_tens_and_named_once(world: World) -> None:
    job_id = (await world.submit()).job_id
    for attempt in (1, 2):
        await world.open(job_id, attempt)
        await world.close(job_id, lost(job_id, attempt))
    items = (await world.service.read.list_job_events(WORKSPACE, job_id)).items
    assert [sequence(each.position) for each in items] == list(range(10, 10 * len(items) + 1, 10))
    ids = [public_id(job_id, each.name, each.ordinal) for each in items]
    assert len(set(ids)) == len(ids)
    assert f"{job_id}:assigned" in ids
    assert f"{job_id}:assigned:2" in ids
    assert f"{job_id}:retry:2" in ids


async def test_a_job_so_short_that_only_its_close_is_heard(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    fact = ended(job_id)
    fact.started_time.FromDatetime(world.clock.now())
    await world.close(job_id, fact)
    job = await world.job(job_id)
    assert job.status is Status.COMPLETED
    assert job.started_time is not None


@pytest.mark.parametrize(
    ("exit", "code", "reason"),
    [
        ({"code": 3}, "EXIT_CODE", Reason.NONE),
        ({"code": 137, "timed_out": True}, "TIMED_OUT", Reason.DEADLINE),
        ({"code": 137, "out_of_memory": True}, "OUT_OF_MEMORY", Reason.OUT_OF_MEMORY),
        ({"code": 0, "timed_out": True}, "TIMED_OUT", Reason.DEADLINE),
    ],
)
async def test_ends_that_are_failures(
    world: World, exit: dict[str, Any], code: str, reason: Reason
) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    await world.claim(job_id)
    await world.start(job_id)
    await world.close(job_id, ended(job_id, **exit))
    job = await world.job(job_id)
    assert job.failure is not None
    assert (job.status, job.failure.code, job.reason) == (Status.FAILED, code, reason)
    assert job.timed_out == exit.get("timed_out", False)
    assert len(world.facts("queued")) == 1


async def test_a_missing_image_fails_without_a_retry(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    await world.close(job_id, lost(job_id, outcome=lease_pb2.LEASE_OUTCOME_IMAGE_UNAVAILABLE))
    job = await world.job(job_id)
    assert job.failure is not None
    assert (job.status, job.failure.code) == (Status.FAILED, "IMAGE_UNAVAILABLE")


async def test_a_lost_attempt_is_tried_again_elsewhere(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id, node="node_9")
    await world.close(job_id, lost(job_id, node="node_9"))
    job = await world.job(job_id)
    assert (job.status, job.attempt, job.placement) == (Status.QUEUED, 2, None)
    queued = world.facts("queued")[1]
    assert (queued.attempt, list(queued.avoid_node_ids)) == (2, ["node_9"])
    assert queued.reservation_id == f"res_{job_id}"
    await world.run(job_id, attempt=2)
    detail = await world.service.read.get_job(WORKSPACE, job_id)
    assert detail.job.status is Status.COMPLETED
    assert [each.state for each in detail.attempts] == [AttemptState.LOST, AttemptState.SUCCEEDED]


async def test_attempts_are_used_up(world: World) -> None:
    job_id = (await world.submit()).job_id
    for attempt in (1, 2, 3):
        await world.open(job_id, attempt, f"node_{attempt}")
        await world.close(job_id, lost(job_id, attempt, node=f"node_{attempt}"))
    job = await world.job(job_id)
    assert job.failure is not None
    assert (job.status, job.failure.code) == (Status.FAILED, "NODE_LOST")
    assert [list(each.avoid_node_ids) for each in world.facts("queued")] == [
        [], ["node_1"], ["node_1", "node_2"],
    ]  # fmt: skip
    assert world.facts("finished")[0].reason == job_pb2.TERMINATION_REASON_INFRASTRUCTURE


async def test_a_stop_that_nobody_asked_for_is_not_the_user_s_failure(world: World) -> None:
    """Nor is it tried again: billing has settled the hold."""
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    await world.close(job_id, ended(job_id, code=143, stopped=True))
    job = await world.job(job_id)
    assert job.failure is not None
    assert (job.failure.code, job.reason) == ("STOPPED", Reason.INFRASTRUCTURE)


async def test_facts_told_twice_or_late_change_nothing(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    await world.close(job_id, lost(job_id))
    before = await world.job(job_id)
    await world.open(job_id)
    await world.claim(job_id)
    await world.start(job_id)
    await world.exit(job_id)
    await world.close(job_id, lost(job_id))
    assert await world.job(job_id) == before
    await world.run(job_id, attempt=2)
    done, names = await world.job(job_id), await world.names(job_id)
    await world.run(job_id, attempt=2)
    assert await world.job(job_id) == done
    assert await world.names(job_id) == names


async def test_another_lease_of_the_same_attempt_is_not_applied(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    stale = ended(job_id)
    stale.lease.lease_id = "lease_stale"
    await world.close(job_id, stale)
    assert (await world.job(job_id)).status is Status.ASSIGNED


async def test_one_open_attempt_per_job(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    with pytest.raises(IntegrityError):
        await world.open(job_id, attempt=2)


async def test_cancel_is_final_at_once_and_the_lease_ends_later(world: World) -> None:
    job_id = (await world.submit(SECRETIVE)).job_id
    await world.open(job_id)
    await world.claim(job_id)
    await world.start(job_id)
    job = await world.service.cancel_job(WORKSPACE, job_id, "user requested stop")
    assert (job.status, job.status_reason) == (Status.CANCELLED, "user requested stop")
    (stop,), (finished,) = world.facts("stop_requested"), world.facts("finished")
    assert stop.reason == job_pb2.TERMINATION_REASON_USER
    assert finished.lease_open
    assert finished.has_callback
    with pytest.raises(AlreadyFinal):
        await world.service.cancel_job(WORKSPACE, job_id, "again")
    await world.exit(job_id, 143, stopped=True)
    await world.close(job_id, ended(job_id, 143, stopped=True))
    detail = await world.service.read.get_job(WORKSPACE, job_id)
    assert detail.job.status is Status.CANCELLED
    assert not detail.attempts[0].state.open
    assert len(world.facts("finished")) == 1
    await world.settle(job_id, 77)
    assert (await world.job(job_id)).cost.total == 77


async def test_cancel_of_a_queued_job_has_no_lease_open(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.service.cancel_job(WORKSPACE, job_id, "")
    assert not world.facts("finished")[0].lease_open
    with pytest.raises(LaunchRefused):
        await world.service.get_launch_spec(job_id, 1, "lease_1", 0)


async def test_cancel_against_close_has_one_winner(world: World) -> None:
    order = random.Random(1)
    for _ in range(100):
        job_id = (await world.submit()).job_id
        await world.open(job_id)
        await world.claim(job_id)
        racers = [
            world.service.cancel_job(WORKSPACE, job_id, ""),
            world.close(job_id, ended(job_id)),
        ]
        order.shuffle(racers)
        found = await asyncio.gather(*racers, return_exceptions=True)
        job = await world.job(job_id)
        refused = [each for each in found if isinstance(each, AlreadyFinal)]
        assert len(refused) == (1 if job.status is Status.COMPLETED else 0)
        assert job.status in (Status.COMPLETED, Status.CANCELLED)
        about = [each for each in world.told if each.meta.aggregate_id == job_id]
        assert [each.meta.aggregate_seq for each in about] == list(range(1, len(about) + 1))
        assert sum(each.WhichOneof("fact") == "finished" for each in about) == 1


async def test_a_used_up_hold_stops_and_fails_the_job(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    await world.claim(job_id)
    await world.start(job_id)
    for _ in range(2):
        await world.hear(billing_pb.HoldExhausted(attempt=1), job_id)
    assert (await world.job(job_id)).status is Status.RUNNING
    (stop,) = world.facts("stop_requested")
    assert stop.reason == job_pb2.TERMINATION_REASON_BUDGET
    with pytest.raises(LaunchRefused):
        await world.service.get_launch_spec(job_id, 1, "lease_1", 0)
    await world.close(job_id, ended(job_id, 143, stopped=True))
    job = await world.job(job_id)
    assert job.failure is not None
    assert (job.status, job.failure.code) == (Status.FAILED, "BUDGET_EXHAUSTED")
    await world.hear(billing_pb.HoldReleased(released_micros=1), job_id)
    assert (await world.job(job_id)).hold.amount == 0


async def test_a_queued_job_whose_hold_went_ends_without_a_lease(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.hear(billing_pb.HoldExhausted(attempt=1), job_id)
    job = await world.job(job_id)
    assert job.failure is not None
    assert (job.status, job.failure.code) == (Status.FAILED, "BUDGET_EXHAUSTED")
    assert [each.WhichOneof("fact") for each in world.told] == [
        "queued", "stop_requested", "finished",
    ]  # fmt: skip
    await world.open(job_id)  # its placement was on the way
    with pytest.raises(LaunchRefused):
        await world.service.get_launch_spec(job_id, 1, "lease_1", 0)
    await world.close(job_id, lost(job_id, outcome=lease_pb2.LEASE_OUTCOME_CANCELLED))
    assert len(world.facts("finished")) == 1


async def test_a_slow_step_is_shown_before_the_start(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    await world.claim(job_id)
    report = lease_pb2.PhaseReport(phase="image_download", message="3 of 9 layers")
    fact = nodes_pb.LeaseProgressed(lease=lease(job_id), phases=[report])
    await world.hear(fact, job_id)
    assert (await world.job(job_id)).phase.value == "image_download"
    await world.start(job_id, phases=("image_download", "runtime_preparation"))
    names = await world.names(job_id)
    assert names.count("image_download") == 1


async def test_a_node_that_never_stops_talking_fills_no_history(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    await world.claim(job_id)
    reports = [lease_pb2.PhaseReport(phase="notice", message=str(n)) for n in range(50)]
    for _ in range(4):
        await world.hear(nodes_pb.LeaseProgressed(lease=lease(job_id), phases=reports), job_id)
    assert (await world.names(job_id)).count("notice") == 100
    await world.start(job_id)
    assert (await world.job(job_id)).status is Status.RUNNING


async def test_a_batch_that_fails_leaves_nothing_and_comes_again(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    failpoints.arm("jobs.consume.after_effect=error")
    try:
        with pytest.raises(failpoints.FailpointError):
            await world.close(job_id, ended(job_id))
    finally:
        failpoints.disarm()
    assert (await world.job(job_id)).status is Status.ASSIGNED
    assert not world.facts("finished")
    await world.close(job_id, ended(job_id))
    assert (await world.job(job_id)).status is Status.COMPLETED
    assert len(world.facts("finished")) == 1


async def test_missing_artifacts_and_log_gaps_are_told(world: World) -> None:
    job_id = (await world.submit()).job_id
    await world.open(job_id)
    fact = ended(job_id)
    fact.log_gap = True
    fact.missing_artifacts.append("/workspace/artifacts/out.json")
    await world.close(job_id, fact)
    assert {"log_gap", "artifact_missing"} < set(await world.names(job_id))
    assert (await world.job(job_id)).status is Status.COMPLETED
