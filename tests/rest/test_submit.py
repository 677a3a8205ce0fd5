"""POST /v1/jobs: what is accepted, and that what is refused leaves nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.rest.conftest import Workspace
from tests.rest.drafts import IMAGE, draft, finished, submit
from tests.rest.shapes import ERROR, SUBMITTED, problems

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Every field that the contract's production guide lists (06).
EVERYTHING = {
    "id": "client-ref-everything",
    "args": [],
    "environment": {"MODE": "fast"},
    "input_files": [],
    "script_files": [],
    "callback_url": "https://callback.invalid/jungle",
    "callback_auth_token": "downstream_callback_token",
    "callback_metadata": {"request_id": "req_123", "customer_id": "cus_456"},
    "batch_size": 1,
    "precision": "fp16",
    "optimize_for": "balanced",
    "disk_gb": 1,
    "gpu_type": "l4",
    "gpu_count": 1,
    "gpu_class": "datacenter",
    "preferred_gpu_family": "l4",
    "avoid_gpu_families": ["a100"],
    "region_preference": "us-east",
    "region_mode": "prefer",
    "priority": "balanced",
    "latency_priority": "balanced",
    "cost_priority": "high",
    "constraints": {"max_price_per_hour": 2.5, "latency_priority": "high"},
}


async def test_submit_of_the_contract(ours: Workspace) -> None:
    made = await ours.api.post("/v1/jobs", draft(name="artifact-demo", optimize_for="balanced"))
    assert made.status == 202
    assert problems(made.body, SUBMITTED) == []
    assert made.body["artifact_contract"] == {
        "expected_artifacts": [
            {
                "path": "/workspace/artifacts/transcript.txt",
                "filename": "transcript.txt",
                "required": True,
            }
        ],
        "automatic_collection_dir": "/workspace/artifacts",
    }


async def test_every_field_of_the_contract_is_taken(ours: Workspace) -> None:
    made = await ours.api.post("/v1/jobs", draft(**EVERYTHING))
    assert made.status == 202, made.body
    job = await ours.api.get(f"/v1/jobs/{made.body['job_id']}")
    assert job.body["client_id"] == EVERYTHING["id"]
    everything = await ours.api.send("GET", f"/v1/jobs/{made.body['job_id']}")
    assert b"downstream_callback_token" not in everything.data


@pytest.mark.parametrize(
    ("fields", "command", "args"),
    [
        ({"command": ["python", "-c", "print(42)"]}, "python", ["-c", "print(42)"]),
        ({"command": "python", "args": ["-c", "print(42)"]}, "python", ["-c", "print(42)"]),
        ({"command": "python -c 'print(42)'"}, "python", ["-c", "print(42)"]),
    ],
)
async def test_command_as_list_and_as_text(
    ours: Workspace, fields: dict[str, Any], command: str, args: list[str]
) -> None:
    job_id = await submit(ours.api, draft(**fields))
    await finished(ours.api, job_id)
    runtime = await ours.api.get(f"/v1/jobs/{job_id}/runtime")
    assert (runtime.body["command"], runtime.body["args"]) == (command, args)


async def test_same_key_gives_the_stored_answer(ours: Workspace) -> None:
    body = draft(name="once")
    first = await ours.api.post("/v1/jobs", body, Idempotency_Key="key-once")
    again = await ours.api.post("/v1/jobs", body, Idempotency_Key="key-once")
    assert (first.status, first.body) == (again.status, again.body)
    changed = await ours.api.post("/v1/jobs", draft(name="other"), Idempotency_Key="key-once")
    assert (changed.status, changed.code) == (422, "IDEMPOTENCY_KEY_REUSED")


async def test_same_client_id_gives_the_stored_answer(ours: Workspace) -> None:
    body = draft(id="ref-1")
    first = await ours.api.post("/v1/jobs", body)
    again = await ours.api.post("/v1/jobs", body)
    assert first.status == again.status == 202
    assert first.body["job_id"] == again.body["job_id"]
    changed = await ours.api.post("/v1/jobs", draft(id="ref-1", name="other"))
    assert (changed.status, changed.code) == (409, "CONFLICT")


async def test_parallel_submits_of_one_key_make_one_job(ours: Workspace) -> None:
    body = draft(name="parallel")
    made = await asyncio.gather(
        *(ours.api.post("/v1/jobs", body, Idempotency_Key="key-parallel") for _ in range(8))
    )
    accepted = {answer.body["job_id"] for answer in made if answer.status == 202}
    assert len(accepted) == 1
    for answer in made:
        assert answer.status in (202, 409)
        if answer.status == 409:
            assert answer.headers["Retry-After"]
    listing = await ours.api.get("/v1/jobs", limit=100)
    assert sum(job["name"] == "parallel" for job in listing.body["jobs"]) == 1


BAD = [
    ("missing name", {"name": None}, 400, "INVALID_REQUEST"),
    ("missing image", {"image": None}, 400, "INVALID_REQUEST"),
    ("empty image", {"image": "  "}, 400, "INVALID_REQUEST"),
    ("image that is none", {"image": "a b;c"}, 400, "INVALID_REQUEST"),
    ("missing workload type", {"workload_type": None}, 400, "INVALID_REQUEST"),
    ("unknown workload type", {"workload_type": "mining"}, 400, "INVALID_REQUEST"),
    ("workload type of another type", {"workload_type": 3}, 400, "INVALID_REQUEST"),
    ("5,000 characters of command", {"command": "x" * 5000}, 400, "INVALID_REQUEST"),
    ("5,000 characters in a list", {"command": ["python", "x" * 5000]}, 400, "INVALID_REQUEST"),
    ("open quote", {"command": "python -c 'x"}, 400, "INVALID_REQUEST"),
    ("NUL in command", {"command": ["a\u0000"]}, 400, "INVALID_REQUEST"),
    ("command of numbers", {"command": [1, 2]}, 400, "INVALID_REQUEST"),
    ("negative model", {"model_size_gb": -1}, 400, "INVALID_REQUEST"),
    ("model that is text", {"model_size_gb": "big"}, 400, "INVALID_REQUEST"),
    ("unknown precision", {"precision": "fp8"}, 400, "INVALID_REQUEST"),
    ("unknown optimisation", {"optimize_for": "fun"}, 400, "INVALID_REQUEST"),
    ("too many GPUs", {"gpu_count": 65}, 400, "INVALID_REQUEST"),
    ("bad variable", {"environment": {"1X": "y"}}, 400, "INVALID_REQUEST"),
    ("variable that is no text", {"environment": {"X": {}}}, 400, "INVALID_REQUEST"),
    ("http callback", {"callback_url": "http://example.com/x"}, 400, "INVALID_REQUEST"),
    ("callback with a password", {"callback_url": "https://u:p@e.com"}, 400, "INVALID_REQUEST"),
    ("artifact outside", {"expected_artifacts": ["/etc/x"]}, 400, "INVALID_EXPECTED_ARTIFACT"),
    (
        "no word on GPUs",
        {"image": "python:3.11", "model_size_gb": None},
        422,
        "ACCELERATOR_REQUIREMENT_UNSPECIFIED",
    ),
    (
        "CPU only",
        {"image": "python:3.11", "model_size_gb": None, "gpu_required": False},
        422,
        "CPU_ONLY_WORKLOAD_UNSUPPORTED",
    ),
    ("mining", {"command": ["xmrig", "-o", "pool"]}, 422, "JOB_SCREENING_BLOCKED"),
    (
        "strict region without capacity",
        {"region_preference": "mars", "region_mode": "strict"},
        409,
        "CONFLICT",
    ),
]


@pytest.mark.parametrize(
    ("fields", "status", "code"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
async def test_bad_job_leaves_nothing(
    clean: Workspace, fields: dict[str, Any], status: int, code: str
) -> None:
    for headers in ({}, {"Idempotency_Key": "bad"}):
        refused = await clean.api.post("/v1/jobs", draft(**fields), **headers)
        assert (refused.status, refused.code) == (status, code), refused.body
        assert problems(refused.body, ERROR) == []
        assert len(refused.message) > 10


async def test_without_credit_nothing_is_held(poor: Workspace) -> None:
    refused = await poor.api.post("/v1/jobs", draft())
    assert (refused.status, refused.code) == (402, "INSUFFICIENT_FUNDS")
    listing = await poor.api.get("/v1/jobs")
    assert listing.body["jobs"] == []
    balance = await poor.api.get("/v1/billing/balance")
    assert balance.status == 200
    assert balance.body["reserved"] == 0


async def test_refused_key_can_be_used_again(ours: Workspace) -> None:
    bad = draft(name="again", workload_type="mining")
    refused = await ours.api.post("/v1/jobs", bad, Idempotency_Key="key-again")
    assert refused.status == 400
    good = await ours.api.post("/v1/jobs", draft(name="again"), Idempotency_Key="key-again")
    assert good.status == 202, good.body


async def test_too_long_key(clean: Workspace) -> None:
    refused = await clean.api.post("/v1/jobs", draft(), Idempotency_Key="k" * 256)
    assert (refused.status, refused.code) == (400, "INVALID_REQUEST")


async def test_image_is_kept_as_sent(ours: Workspace) -> None:
    job_id = await submit(ours.api, draft())
    assert (await ours.api.get(f"/v1/jobs/{job_id}")).body["image"] == IMAGE
