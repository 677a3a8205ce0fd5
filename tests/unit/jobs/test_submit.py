"""Submit: what is written, what is said, and what is left behind when it fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from libs import failpoints
from libs.errors import (
    Conflict,
    FailedPrecondition,
    GridError,
    NotFound,
    Unavailable,
)
from libs.failpoints import FailpointError
from services.jobs.domain.states import Reason, Status
from services.jobs.domain.submitted import Submitted
from services.jobs.errors import (
    AlreadyFinal,
    ClientIdTaken,
    IdempotencyKeyReused,
    RegionUnavailable,
    SubmitInFlight,
)
from tests.unit.jobs.world import (
    CEILING,
    DRAFT,
    NOTHING_FITS,
    OTHER,
    SECRETIVE,
    WORKSPACE,
    World,
    wishing,
)

EMPTY = {
    "jobs": 0, "attempts": 0, "activities": 0, "job_secrets": 0, "submit_keys": 0, "outbox": 0,
}  # fmt: skip


async def test_a_submit_is_queued_held_and_told(world: World) -> None:
    reply = await world.submit(SECRETIVE, key="k")
    job = await world.job(reply.job_id)
    assert (job.status, job.attempt, job.hold.amount) == (Status.QUEUED, 1, CEILING)
    assert world.holds.held == {reply.job_id: CEILING}
    assert await world.names(reply.job_id) == ["submitted", "queued"]
    (queued,) = world.facts("queued")
    assert queued.attempt == 1
    assert queued.reservation_id == f"res_{reply.job_id}"
    assert queued.constraints.price_micros_per_hour_max == CEILING
    assert queued.resources.gpu.memory_bytes_min == 1_700_000_000
    assert queued.timeout_seconds == 3600
    assert world.told[0].meta.aggregate_seq == 1


async def test_secrets_are_sealed_and_nowhere_on_the_bus(world: World, tmp_path: Path) -> None:
    await world.submit(SECRETIVE, key="k")
    await world.database.stop()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"canary" not in stored
    assert b"https://example.com" not in b"".join(e.SerializeToString() for e in world.told)
    assert "canary" not in repr(SECRETIVE)


async def test_no_capacity_is_queued_and_waits(world: World) -> None:
    world.quotes.answer = NOTHING_FITS
    reply = await world.submit(wishing(region_preference="us-east"))
    job = await world.job(reply.job_id)
    assert job.phase.value == "waiting_for_capacity"
    assert job.hold.ceiling == world.config.gpu_price_ceiling_micros
    assert await world.names(reply.job_id) == ["submitted", "queued", "waiting_for_capacity"]


@pytest.mark.parametrize(
    ("guess", "wished", "ceiling"),
    [(120_000, 0, 4_000_000), (9_000_000, 0, 9_000_000), (120_000, 200_000, 200_000)],
    ids=["cheaper than any node", "dearer than the default", "the user's own limit"],
)
async def test_a_guessed_price_keeps_no_job_from_the_nodes_that_come(
    world: World, guess: int, wished: int, ceiling: int
) -> None:
    assert world.config.gpu_price_ceiling_micros == 4_000_000
    world.quotes.answer = replace(NOTHING_FITS, price=guess, price_ceiling=guess)
    reply = await world.submit(wishing(price_micros_per_hour_max=wished))
    assert (await world.job(reply.job_id)).hold.ceiling == ceiling


@pytest.mark.parametrize(
    ("timeout", "budget", "held"),
    [(None, 0, CEILING), (7, 0, 7000), (7200, 0, 2 * CEILING), (7200, 1_500_000, 1_500_000)],
)
async def test_hold_is_ceiling_times_time_up_to_the_budget(
    world: World, timeout: int | None, budget: int, held: int
) -> None:
    draft = replace(wishing(budget_micros=budget), timeout_seconds=timeout)
    assert (await world.submit(draft)).reserved == held


async def test_hold_is_rounded_up(world: World) -> None:
    world.quotes.answer = replace(world.quotes.answer, price_ceiling=CEILING + 1)
    assert (await world.submit(replace(DRAFT, timeout_seconds=1))).reserved == 1001


async def test_the_user_s_price_limit_lowers_the_ceiling(world: World) -> None:
    await world.submit(wishing(price_micros_per_hour_max=1000))
    assert world.facts("queued")[0].constraints.price_micros_per_hour_max == 1000


@pytest.mark.parametrize(
    "fault",
    ["draft", "inputs", "quote", "region", "funds"],
)
async def test_a_refused_submit_leaves_nothing(world: World, fault: str) -> None:
    draft = replace(SECRETIVE, client_id="mine", input_ids=("inp_1",))
    expected: type[GridError] = GridError
    if fault == "draft":
        draft = replace(draft, image="")
    elif fault == "inputs":
        world.inputs.error = NotFound("no", reason="JOB_INPUT_NOT_FOUND")
    elif fault == "quote":
        world.quotes.error = Unavailable("scheduling is away")
    elif fault == "region":
        draft = wishing(draft, region_preference="mars", region_mode="strict")
        world.quotes.answer, expected = NOTHING_FITS, RegionUnavailable
    else:
        world.holds.error = FailedPrecondition("no", reason="INSUFFICIENT_FUNDS")
    with pytest.raises(expected):
        await world.submit(draft, key="k")
    assert await world.rows() == EMPTY
    assert not world.holds.held
    assert not world.told


async def test_a_refused_key_can_be_used_again(world: World) -> None:
    world.holds.error = FailedPrecondition("no", reason="INSUFFICIENT_FUNDS")
    with pytest.raises(FailedPrecondition):
        await world.submit(key="k")
    world.holds.error = None
    assert (await world.submit(key="k")).status is Status.QUEUED


@pytest.mark.parametrize("kind", ["key", "id"])
async def test_a_repeat_gets_the_stored_answer(world: World, kind: str) -> None:
    draft = replace(DRAFT, client_id="mine") if kind == "id" else DRAFT
    key = "k" if kind == "key" else ""
    first = await world.submit(draft, key=key)
    await world.pass_time(5)
    await world.run(first.job_id)
    assert await world.submit(draft, key=key) == first
    assert len(world.holds.calls) == 1
    assert (await world.rows())["jobs"] == 1


async def test_another_body_under_the_same_key_is_refused(world: World) -> None:
    await world.submit(replace(DRAFT, client_id="mine"), key="k")
    with pytest.raises(IdempotencyKeyReused):
        await world.submit(replace(DRAFT, client_id="mine", name="other"), key="k")
    with pytest.raises(ClientIdTaken):
        await world.submit(replace(DRAFT, client_id="mine", name="other"))
    assert (await world.rows())["jobs"] == 1


async def test_keys_belong_to_their_workspace(world: World) -> None:
    first = await world.submit(replace(DRAFT, client_id="mine"), key="k")
    second = await world.submit(
        replace(DRAFT, client_id="mine", name="other"), key="k", tenant=OTHER
    )
    assert first.job_id != second.job_id


async def test_a_repeat_in_flight_is_told_to_wait(world: World) -> None:
    world.holds.gate = asyncio.Event()
    first = asyncio.create_task(world.submit(key="k"))
    await world.holds.waiting.wait()
    with pytest.raises(SubmitInFlight) as refused:
        await world.submit(key="k")
    assert refused.value.retry_after_seconds is not None
    assert refused.value.retry_after_seconds > 0
    world.holds.gate.set()
    reply = await first
    assert await world.submit(key="k") == reply


async def test_racing_submits_of_one_key_make_one_job(world: World) -> None:
    found = await asyncio.gather(
        *(world.submit(key="k") for _ in range(20)), return_exceptions=True
    )
    replies = {each for each in found if isinstance(each, Submitted)}
    assert len(replies) == 1
    assert all(isinstance(each, Submitted | SubmitInFlight) for each in found)
    assert (await world.rows())["jobs"] == 1
    assert len(world.holds.calls) == 1


async def test_a_submit_goes_on_when_its_caller_hangs_up(world: World) -> None:
    world.holds.gate = asyncio.Event()
    first = asyncio.create_task(world.submit(key="k"))
    await world.holds.waiting.wait()
    first.cancel()
    world.holds.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await world.news.wait()
    assert (await world.submit(key="k")).status is Status.QUEUED
    assert len(world.holds.calls) == 1


@pytest.mark.parametrize("point", ["after_pending", "after_reserve"])
async def test_a_dead_submit_is_finished_by_its_retry(world: World, point: str) -> None:
    failpoints.arm(f"jobs.submit.{point}=error")
    try:
        with pytest.raises(FailpointError):
            await world.submit(key="k")
    finally:
        failpoints.disarm()
    with pytest.raises(SubmitInFlight):
        await world.submit(key="k")
    await world.pass_time(world.config.submit_lease_seconds)
    reply = await world.submit(key="k")
    assert (await world.rows())["jobs"] == 1
    assert list(world.holds.held) == [reply.job_id]
    assert len(world.quotes.asked) == 1
    assert await world.submit(key="k") == reply


async def test_a_submit_dead_for_so_long_that_its_hold_went_begins_anew(world: World) -> None:
    failpoints.arm("jobs.submit.after_reserve=error")
    try:
        with pytest.raises(FailpointError):
            await world.submit(key="k")
    finally:
        failpoints.disarm()
    (dead,) = world.holds.held
    world.holds.given_back = {world.holds.held.popitem()[0]}
    await world.pass_time(120)
    reply = await world.submit(key="k")
    assert reply.job_id != dead
    assert list(world.holds.held) == [reply.job_id]
    assert (await world.rows())["jobs"] == 1
    assert await world.submit(key="k") == reply


async def test_after_the_commit_the_answer_is_there(world: World) -> None:
    failpoints.arm("jobs.submit.after_commit=error")
    try:
        with pytest.raises(FailpointError):
            await world.submit(key="k")
    finally:
        failpoints.disarm()
    reply = await world.submit(key="k")
    assert reply.status is Status.QUEUED
    assert len(world.holds.calls) == 1


@pytest.mark.parametrize("point", ["after_pending", "after_reserve"])
async def test_a_dead_submit_is_voided_within_a_minute(world: World, point: str) -> None:
    failpoints.arm(f"jobs.submit.{point}=error")
    try:
        with pytest.raises(FailpointError):
            await world.submit(replace(DRAFT, client_id="mine"), key="k")
    finally:
        failpoints.disarm()
    assert await world.service.sweep_orphans() == 0
    await world.pass_time(60 - world.config.sweep_seconds)
    assert await world.service.sweep_orphans() == 1
    assert not world.holds.held
    page = await world.service.read.list_jobs(WORKSPACE, limit=None, cursor="", status=None)
    (shown,) = page.jobs
    assert (shown.job.status, shown.job.reason) == (Status.REJECTED, Reason.RESERVATION)
    assert not world.told
    reply = await world.submit(replace(DRAFT, client_id="mine"), key="k")
    assert reply.job_id != shown.job.job_id
    assert await world.service.sweep_orphans() == 0


async def test_an_orphan_stays_while_billing_is_away(world: World) -> None:
    world.holds.error_after = Unavailable("no answer")
    with pytest.raises(Unavailable):
        await world.submit()
    world.holds.error = Unavailable("away")
    await world.pass_time(60)
    assert await world.service.sweep_orphans() == 0
    # It is final already: a hold that was given back must not be found by a retry.
    page = await world.service.read.list_jobs(WORKSPACE, limit=None, cursor="", status=None)
    assert page.jobs[0].job.status is Status.REJECTED
    assert world.holds.held
    world.holds.error = None
    await world.pass_time(60)
    assert await world.service.sweep_orphans() == 1
    assert not world.holds.held
    assert await world.service.sweep_orphans() == 0


async def test_an_unanswered_reserve_is_finished_by_the_next_try(world: World) -> None:
    world.holds.error_after = Unavailable("no answer")
    with pytest.raises(Unavailable):
        await world.submit(key="k")
    world.holds.error_after = None
    reply = await world.submit(key="k")
    assert list(world.holds.held) == [reply.job_id]
    assert len(world.holds.calls) == 2


async def test_cancel_during_submit_gives_the_hold_back(world: World) -> None:
    world.holds.gate = asyncio.Event()
    first = asyncio.create_task(world.submit(key="k"))
    await world.holds.waiting.wait()
    page = await world.service.read.list_jobs(WORKSPACE, limit=None, cursor="", status=None)
    job_id = page.jobs[0].job.job_id
    assert page.jobs[0].job.status is Status.PENDING
    await world.service.cancel_job(WORKSPACE, job_id, "no")
    world.holds.gate.set()
    with pytest.raises(AlreadyFinal):
        await first
    assert not world.holds.held
    assert (await world.job(job_id)).status is Status.CANCELLED
    assert not world.told
    await world.pass_time(60)
    assert await world.service.sweep_orphans() == 1
    assert (await world.job(job_id)).status is Status.CANCELLED
    assert (await world.rows())["submit_keys"] == 0


async def test_two_commits_and_two_calls(world: World) -> None:
    commits = 0
    write = world.database.write

    async def counted(*args: object, **more: object) -> object:
        nonlocal commits
        commits += 1
        return await write(*args, **more)  # type: ignore[arg-type]

    world.database.write = counted  # type: ignore[method-assign, assignment]
    await world.submit()
    assert commits == 2
    assert (len(world.quotes.asked), len(world.holds.calls)) == (1, 1)


async def test_old_keys_are_forgotten_and_the_client_id_is_not(world: World) -> None:
    await world.submit(replace(DRAFT, client_id="mine"), key="k")
    await world.pass_time(8 * 86_400)
    assert await world.service.expire_keys() == 2
    with pytest.raises(Conflict):
        await world.submit(replace(DRAFT, client_id="mine"), key="k")
