"""kill -9 of the grid at every named place of a submit, of a job's end and of its callback (K1, K2,
K15, K19): one job, one hold, one end, and the receiver is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from deploy.up.api import ApiError
from tests.chaos.test_kill_in_the_middle import check_ledger
from tests.support.stack import Stack, stack

T = TypeVar("T")
QUICK = {
    "GRID_JOBS__SUBMIT_LEASE_SECONDS": "3",
    "GRID_JOBS__SWEEP_SECONDS": "5",
    "GRID_WEBHOOKS__TOTAL_TIMEOUT_SECONDS": "2",
    "GRID_WEBHOOKS__CLAIM_SECONDS": "3",
    "GRID_WEBHOOKS__SWEEP_SECONDS": "5",
}
SUBMIT = ["jobs.submit.after_pending", "jobs.submit.after_reserve", "jobs.submit.after_commit"]
NOT_YET = ("in flight", "still being handled", "UNAVAILABLE")


@asynccontextmanager
async def quick(orphan_age_seconds: float = 60) -> AsyncIterator[Stack]:
    overrides = QUICK | {"GRID_JOBS__ORPHAN_AGE_SECONDS": str(orphan_age_seconds)}
    gpus = "simulated:l4:24GiB:2"
    async with stack(runtime="simulated", gpus=gpus, overrides=overrides) as whole:
        yield whole


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole() -> AsyncIterator[Stack]:
    async with quick() as found:
        yield found


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


async def armed(whole: Stack, failpoint: str) -> None:
    await whole.grid.stop()
    await whole.grid.start(failpoint=f"{failpoint}=kill")
    await insisting(lambda: listed(whole))


async def submitted_and_killed(whole: Stack, **fields: Any) -> None:
    with pytest.raises((aiohttp.ClientError, ApiError)):
        await whole.submit(**fields)
    await whole.grid.process.wait()
    await whole.grid.start()


async def insisting(ask: Callable[[], Awaitable[T]]) -> T:
    """What a careful client does: the same request again while the grid says "not yet"."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await ask()
            except ApiError as error:
                if not any(word in str(error) for word in NOT_YET):
                    raise
            await asyncio.sleep(0.5)


async def listed(whole: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await whole.api.call("GET", "/v1/jobs"))["jobs"]
    return found


async def voided(whole: Stack) -> dict[str, Any]:
    (job,) = await listed(whole)
    if job["status"] == "pending":
        raise ApiError("in flight")
    return job


@pytest.mark.parametrize("failpoint", SUBMIT)
async def test_a_submit_that_died_is_finished_by_its_retry(whole: Stack, failpoint: str) -> None:
    await armed(whole, failpoint)
    before = {job["job_id"] for job in await listed(whole)}
    await submitted_and_killed(whole, id=failpoint)
    job_id = await insisting(lambda: whole.submit(id=failpoint))
    assert await whole.submit(id=failpoint) == job_id
    assert (await whole.finished(job_id))["status"] == "completed"
    await whole.settled(job_id)
    assert {job["job_id"] for job in await listed(whole)} - before == {job_id}
    await check_ledger(whole)


async def test_an_end_that_died_is_applied_once(whole: Stack) -> None:
    await armed(whole, "jobs.consume.after_effect")
    job_id = await whole.submit()
    await whole.grid.process.wait()
    await whole.grid.start()
    job = await insisting(lambda: whole.finished(job_id))
    assert job["status"] == "completed"
    await whole.settled(job_id)
    events = (await whole.api.call("GET", f"/v1/jobs/{job_id}/events"))["items"]
    sequences = [event["sequence"] for event in events]
    assert sequences == [10 * n for n in range(1, len(events) + 1)]
    assert [event["type"] for event in events].count("job.completed") == 1
    await check_ledger(whole)


async def test_a_submit_that_nobody_retries_is_voided() -> None:
    async with quick(orphan_age_seconds=4) as whole:
        await armed(whole, "jobs.submit.after_reserve")
        await submitted_and_killed(whole)
        job = await insisting(lambda: voided(whole))
        assert (job["status"], job["billing"]["reserved_usd"]) == ("rejected", 0)
        await insisting(lambda: nothing_held(whole))
        await check_ledger(whole)


async def nothing_held(whole: Stack) -> None:
    if (await whole.api.call("GET", "/v1/billing/balance"))["reserved"]:
        raise ApiError("in flight")


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, list[bytes], asyncio.Event]]:
    """A callback receiver: its URL, the bodies it got, and news of them."""
    got: list[bytes] = []
    news = asyncio.Event()

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        got.append(await request.read())
        news.set()
        return web.Response()

    runner = web.ServerRunner(web.Server(take))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://localhost:{runner.addresses[0][1]}/hook", got, news
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("place", ["before_send", "after_send"])
async def test_a_callback_whose_try_died_is_told_again(whole: Stack, place: str) -> None:
    async with receiver() as (url, got, news):
        await armed(whole, f"webhooks.deliver.{place}")
        job_id = await whole.submit(callback_url=url, callback_metadata={"request_id": "r"})
        await whole.grid.process.wait()
        assert len(got) == (1 if place == "after_send" else 0)
        news.clear()
        await whole.grid.start()
        async with asyncio.timeout(30):
            await news.wait()
        assert len(set(got)) == 1
        body = json.loads(got[-1])
        assert (body["job_id"], body["status"]) == (job_id, "completed")
        assert body["correlation_data"] == {"request_id": "r"}
