"""Jobs as these tests submit them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.rest.client import Answer, Client

IMAGE = "pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime"
FINAL = ("completed", "failed", "rejected", "cancelled")


def draft(**fields: Any) -> dict[str, Any]:
    """The quickstart's body with `fields` over it; None takes a field away."""
    body = {
        "name": "quickstart-job",
        "image": IMAGE,
        "workload_type": "batch",
        "model_size_gb": 1,
        "command": ["python", "-c", "print(42)"],
        "expected_artifacts": ["/workspace/artifacts/transcript.txt"],
        **fields,
    }
    return {name: value for name, value in body.items() if value is not None}


def waiting(**fields: Any) -> dict[str, Any]:
    """A job that no node here can take. Its hold is at the operator's price ceiling, so it is to
    run for a minute only."""
    return draft(gpu_count=32, timeout_seconds=60, **fields)


def simulated(script: str, **fields: Any) -> dict[str, Any]:
    """A job that the simulated runtime plays: what it prints, writes and exits with."""
    return draft(environment={"JUNGLEGRID_SIMULATE": script}, **fields)


async def submit(api: Client, body: dict[str, Any]) -> str:
    """The id of a job that was accepted."""
    made = await api.post("/v1/jobs", body)
    assert made.status == 202, made.body
    return str(made.body["job_id"])


async def finished(api: Client, job_id: str) -> dict[str, Any]:
    """The job once it is final, by its live stream."""
    async for event in api.stream(f"/v1/jobs/{job_id}/logs/live"):
        if event["event"] == "terminal":
            assert json.loads(event["data"])["status"] in FINAL
    job = await api.get(f"/v1/jobs/{job_id}")
    assert job.status == 200, job.body
    found: dict[str, Any] = job.body
    return found


async def upload(
    api: Client,
    filename: str,
    data: bytes,
    kind: str = "input",
    told: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Answer]:
    """A slot whose bytes were sent, and the answer to complete; `told` changes what it says."""
    made = await api.post(
        "/v1/job-inputs", {"filename": filename, "content_type": "text/x-python", "kind": kind}
    )
    assert made.status == 201, made.body
    slot: dict[str, Any] = made.body["upload"]
    sent = await api.put_url(slot["upload_url"], data, {"Content-Type": "text/x-python"})
    assert sent.status == 200, sent.body
    claim = {
        "token": slot["token"],
        "filename": filename,
        "content_type": "text/x-python",
        "size_bytes": len(data),
    }
    done = await api.post(f"/v1/job-inputs/{slot['input_id']}/complete", {**claim, **(told or {})})
    return slot, done
