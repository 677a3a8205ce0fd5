"""kill -9 of the grid while a hold, a placement or a settlement is written (K5, K15, K16): the job
is placed once, runs once, and the ledger is exact."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest
import pytest_asyncio

from deploy.up.api import ApiError
from tests.chaos.test_kill_in_the_middle import check_ledger
from tests.chaos.test_submit_and_end import armed, insisting
from tests.support.stack import Stack, stack

POINTS = [
    "billing.reserve.after_commit",
    "billing.settle.in_transaction",
    "scheduling.commit.in_transaction",
    "scheduling.commit.after_commit",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole() -> AsyncIterator[Stack]:
    overrides = {"GRID_JOBS__SUBMIT_LEASE_SECONDS": "3", "GRID_JOBS__SWEEP_SECONDS": "5"}
    gpus = "simulated:l4:24GiB:2"
    async with stack(runtime="simulated", gpus=gpus, overrides=overrides) as found:
        yield found


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest.mark.parametrize("failpoint", POINTS)
async def test_a_job_goes_on_after_a_kill(whole: Stack, failpoint: str) -> None:
    await armed(whole, failpoint)
    with suppress(aiohttp.ClientError, ApiError):  # the reply may be lost with the process
        await whole.submit(id=failpoint)
    await whole.grid.process.wait()
    await whole.grid.start()
    job_id = await insisting(lambda: whole.submit(id=failpoint))
    job = await insisting(lambda: whole.finished(job_id))
    assert (job["status"], job["retry_count"]) == ("completed", 0)
    await whole.settled(job_id)
    balance = await whole.api.call("GET", "/v1/billing/balance")
    assert balance["reserved"] == 0
    await check_ledger(whole)
