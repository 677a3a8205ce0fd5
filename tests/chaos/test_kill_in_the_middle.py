"""kill -9 in the middle of a running job: it ends once, and nothing is missing or twice."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from junglegrid.billing.v1 import billing_internal_service_pb2 as billing_pb
from junglegrid.billing.v1 import billing_internal_service_pb2_grpc as billing_grpc

from tests.support.stack import Stack, python, stack

LINES = 120
WORK = f"""
import sys, time
from pathlib import Path
for number in range(1, {LINES} + 1):
    print("line", number)
    if number % 10 == 0:
        print("note", number, file=sys.stderr)
    time.sleep(0.05)
Path("/workspace/artifacts/result.txt").write_text("x" * 100_000)
"""


async def started(whole: Stack) -> str:
    """A job that has written its first lines."""
    job_id = await whole.submit(command=python(WORK), expected_artifacts=["result.txt"])
    seen = 0
    async for name, _ in whole.api.events(f"/v1/jobs/{job_id}/logs/live"):
        seen += name == "log"
        if seen >= 10:
            break
    return job_id


async def check(whole: Stack, job_id: str) -> None:
    await whole.finished(job_id, 90)
    job = await whole.settled(job_id)
    assert (job["status"], job["exit_code"], job["retry_count"]) == ("completed", 0, 0)
    assert len(job["attempts"]) == 1
    entries = await whole.lines(job_id)
    out = [e["message"] for e in entries if e["stream"] == "stdout"]
    err = [e["message"] for e in entries if e["stream"] == "stderr"]
    assert out == [f"line {n}" for n in range(1, LINES + 1)]
    assert err == [f"note {n}" for n in range(10, LINES + 1, 10)]
    await check_artifact(whole, job_id)
    await check_ledger(whole)


async def check_artifact(whole: Stack, job_id: str) -> None:
    listing = await whole.api.call("GET", f"/v1/jobs/{job_id}/artifacts")
    (artifact,) = listing["artifacts"]
    grant = await whole.api.call(
        "POST", f"/v1/jobs/{job_id}/artifacts/{artifact['artifact_id']}/download"
    )
    data = await whole.api.get(grant["url"])
    assert hashlib.sha256(data).hexdigest() == artifact["sha256"]
    assert data == b"x" * 100_000


async def check_ledger(whole: Stack) -> None:
    """Every transfer debits one account and credits another, so the accounts sum to zero; and
    nothing stays held once the job is settled."""
    stub = billing_grpc.BillingInternalServiceStub(whole.channel)
    found = await stub.ListTransfers(billing_pb.ListTransfersRequest(page_size=1000))
    sums: dict[str, int] = {}
    for item in found.transfers:
        sums[item.debit_account] = sums.get(item.debit_account, 0) - item.amount_micros
        sums[item.credit_account] = sums.get(item.credit_account, 0) + item.amount_micros
    assert sum(sums.values()) == 0
    balance: dict[str, Any] = await whole.api.call("GET", "/v1/billing/balance")
    assert sums[f"wallet:{whole.credentials.workspace_id}"] == round(
        balance["available"] * 1_000_000
    )


@pytest.mark.timeout(180)
async def test_the_node_daemon_is_killed_and_started_again() -> None:
    async with stack(runtime="sandbox", gpus="simulated:l4:24GiB:1") as whole:
        job_id = await started(whole)
        await whole.nodes[0].kill()
        await whole.nodes[0].start()
        await check(whole, job_id)


@pytest.mark.timeout(180)
async def test_the_grid_is_killed_and_started_again() -> None:
    async with stack(runtime="sandbox", gpus="simulated:l4:24GiB:1") as whole:
        job_id = await started(whole)
        await whole.grid.kill()
        await whole.grid.start()
        await check(whole, job_id)


@pytest.mark.timeout(180)
async def test_both_are_killed_and_started_again() -> None:
    async with stack(runtime="sandbox", gpus="simulated:l4:24GiB:1") as whole:
        job_id = await started(whole)
        await whole.nodes[0].kill()
        await whole.grid.kill()
        await whole.grid.start()
        await whole.nodes[0].start()
        await check(whole, job_id)
