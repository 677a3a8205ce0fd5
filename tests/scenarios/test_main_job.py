"""The main job, as a user sees it: estimate, upload, submit, follow, read, download, pay."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from junglegrid.billing.v1 import billing_internal_service_pb2 as billing_pb
from junglegrid.billing.v1 import billing_internal_service_pb2_grpc as billing_grpc

from tests.support.stack import Stack, draft, stack

SCRIPT = b"""
import os, sys
from pathlib import Path
data = Path("/workspace/inputs/data.bin").read_bytes()
print("job", os.environ["JUNGLEGRID_JOB_ID"])
print("bytes", len(data))
print("to stderr", file=sys.stderr)
Path("/workspace/artifacts/copy.bin").write_bytes(data[::-1])
sys.exit(3)
"""
DATA = bytes(range(256)) * 400


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole() -> AsyncIterator[Stack]:
    async with stack(runtime="sandbox", gpus="simulated:l4:24GiB:2") as found:
        yield found


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def upload(whole: Stack, filename: str, kind: str, data: bytes) -> str:
    slot = await whole.api.call("POST", "/v1/job-inputs", {"filename": filename, "kind": kind})
    found = slot["upload"]
    await whole.api.put(found["upload_url"], data, found["headers"])
    done = await whole.api.call(
        "POST",
        f"/v1/job-inputs/{found['input_id']}/complete",
        {"token": found["token"], "filename": filename, "size_bytes": len(data)},
    )
    assert done["input"]["status"] == "uploaded"
    assert done["input"]["sha256"] == hashlib.sha256(data).hexdigest()
    return str(found["input_id"])


async def test_a_script_by_slot_runs_and_its_artifact_comes_back(whole: Stack) -> None:
    script = await upload(whole, "work.py", "script", SCRIPT)
    data = await upload(whole, "data.bin", "input", DATA)
    job_id = await whole.submit(
        command=["python", "/workspace/scripts/work.py"],
        script_files=[{"input_id": script}],
        input_files=[{"input_id": data}],
        expected_artifacts=["copy.bin"],
    )
    job = await whole.finished(job_id)
    assert (job["status"], job["exit_code"], job["retry_count"]) == ("failed", 3, 0)
    assert (job["runtime"], job["simulated"]) == ("sandbox", True)
    await check_logs(whole, job_id)
    await check_artifact(whole, job_id)
    await check_runtime(whole, job_id)


async def check_logs(whole: Stack, job_id: str) -> None:
    entries = await whole.lines(job_id)
    out = [e["message"] for e in entries if e["stream"] == "stdout"]
    err = [e["message"] for e in entries if e["stream"] == "stderr"]
    assert out == [f"job {job_id}", f"bytes {len(DATA)}"]
    assert err == ["to stderr"]
    assert [e["entry_id"] for e in entries] == list(range(1, len(entries) + 1))


async def check_artifact(whole: Stack, job_id: str) -> None:
    listing = await whole.api.call("GET", f"/v1/jobs/{job_id}/artifacts")
    (artifact,) = listing["artifacts"]
    assert (artifact["filename"], artifact["ready"]) == ("copy.bin", True)
    path = f"/v1/jobs/{job_id}/artifacts/{artifact['artifact_id']}/download"
    grant = await whole.api.call("POST", path)
    assert await whole.api.get(grant["url"]) == DATA[::-1]


async def check_runtime(whole: Stack, job_id: str) -> None:
    runtime = await whole.api.call("GET", f"/v1/jobs/{job_id}/runtime")
    assert (runtime["exit_code"], runtime["timed_out"]) == (3, False)
    assert runtime["stdout_tail"].endswith(f"bytes {len(DATA)}")
    assert runtime["stderr_tail"] == "to stderr"
    assert runtime["runtime_availability"]["exit_code"]["state"] == "available"
    assert runtime["startup_diagnostics"]["scripts_prepared"] is True


async def test_the_quickstart_of_the_contract_leaves_its_transcript(whole: Stack) -> None:
    text = (
        "from pathlib import Path; Path('/workspace/artifacts/transcript.txt').write_text('done')"
    )
    body = draft(
        name="quickstart-job",
        command=["python", "-c", text],
        expected_artifacts=["/workspace/artifacts/transcript.txt"],
    )
    estimate = await whole.api.call("POST", "/v1/jobs/estimate", body)
    assert estimate["available"] is True
    assert estimate["classification"]["acceleration_requirement"] == "gpu_required"
    submitted = await whole.api.call("POST", "/v1/jobs", body)
    assert submitted["status"] == "queued"
    assert submitted["artifact_contract"]["automatic_collection_dir"] == "/workspace/artifacts"
    job = await whole.finished(submitted["job_id"])
    assert (job["status"], job["exit_code"], job["artifacts_ready"]) == ("completed", 0, True)


async def test_events_tell_every_phase_in_order_and_that_the_image_was_not_used(
    whole: Stack,
) -> None:
    job_id = await whole.submit()
    await whole.finished(job_id)
    listing = await whole.api.call("GET", f"/v1/jobs/{job_id}/events")
    items: list[dict[str, Any]] = listing["items"]
    assert [item["sequence"] for item in items] == [10 * n for n in range(1, len(items) + 1)]
    times = [item["created_at"] for item in items]
    assert times == sorted(times)
    types = [item["type"] for item in items]
    wanted = ["job.submitted", "job.queued", "job.assigned", "job.running", "job.completed"]
    assert [name for name in types if name in wanted] == wanted
    assert items[types.index("job.queued")]["id"] == f"{job_id}:queued"
    (notice,) = [item for item in items if item["type"] == "job.notice"]
    assert "does not use the image" in notice["message"]


async def test_a_launch_that_can_never_succeed_is_tried_once(whole: Stack) -> None:
    """The sandbox does not use the image, so there is nothing to run without a command."""
    job_id = await whole.submit(command=[])
    job = await whole.finished(job_id)
    assert (job["status"], job["retry_count"]) == ("failed", 0)
    assert job["failure"]["code"] == "LAUNCH_INVALID"
    assert "command" in job["failure"]["summary"]


async def test_the_ledger_balances_and_the_cost_is_the_metered_one(whole: Stack) -> None:
    before = {"reserved": 1}
    async with asyncio.timeout(20):  # jobs of earlier tests are final, and maybe not settled
        while before["reserved"]:
            before = await whole.api.call("GET", "/v1/billing/balance")
    job_id = await whole.submit(command=["python", "-c", "import time; time.sleep(0.5)"])
    await whole.finished(job_id)
    job = await whole.settled(job_id)
    after = await whole.api.call("GET", "/v1/billing/balance")
    cost = job["billing"]["final_cost_usd"]
    assert 0 < cost < 0.01
    assert after["available"] == pytest.approx(before["available"] - cost, abs=1e-9)
    assert after["reserved"] == before["reserved"] == 0
    stub = billing_grpc.BillingInternalServiceStub(whole.channel)
    transfers = await stub.ListTransfers(billing_pb.ListTransfersRequest(job_id=job_id))
    assert all(item.amount_micros > 0 for item in transfers.transfers)


async def test_a_running_job_is_cancelled_and_its_process_ends(whole: Stack) -> None:
    job_id = await whole.submit(
        command=["python", "-u", "-c", "print(1); import time; time.sleep(60)"]
    )
    async for name, _ in whole.api.events(f"/v1/jobs/{job_id}/logs/live"):
        if name == "log":
            break
    answer = await whole.api.call("POST", f"/v1/jobs/{job_id}/cancel", {"reason": "enough"})
    assert answer == {"job_id": job_id, "status": "cancelled", "status_reason": "enough"}
    job = await whole.finished(job_id, 30)
    assert (job["status"], job["status_reason"]) == ("cancelled", "enough")
    # The GPUs are free again: a job that needs both runs.
    other = await whole.submit(gpu_count=2)
    assert (await whole.finished(other))["status"] == "completed"
