"""/v1/jobs/estimate: every field of the contract, and nothing written."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rest.conftest import Workspace
from tests.rest.drafts import draft
from tests.rest.shapes import ESTIMATE, problems

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEMO = {
    "name": "estimate-demo",
    "workload_type": "inference",
    "model_size_gb": 7,
    "command": ["python", "infer.py"],
    "expected_artifacts": None,
    "optimize_for": "balanced",
    "constraints": {
        "max_price_per_hour": 2.5,
        "region_preference": "us-east",
        "region_mode": "prefer",
    },
}


async def test_estimate_of_the_contract(clean: Workspace) -> None:
    made = await clean.api.post("/v1/jobs/estimate", draft(**DEMO))
    assert made.status == 200
    assert problems(made.body, ESTIMATE) == []
    body = made.body
    assert body["available"] is True
    assert body["classification"]["workload_type"] == "inference"
    assert body["classification"]["requires_gpu"] is True
    assert body["classification"]["acceleration_requirement"] == "gpu_required"
    assert body["routing"]["selected_route_source"] == "live_capacity"
    assert body["capacity"]["live_candidate_count"] >= 1
    assert body["screening"]["can_submit"] is True
    assert body["screening"]["checks"][0]["code"] == "SCREENING_PASSED"
    assert 0 < body["estimated_cost_min_usd"] <= body["estimated_cost_max_usd"]
    assert 0 < body["estimated_hourly_rate_usd"] <= 2.5


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": None}, "name"),
        ({"image": None}, "image"),
        ({"workload_type": None}, "workload_type"),
        ({"workload_type": "mining"}, "workload_type"),
        ({"command": "x" * 5000}, "command"),
        ({"expected_artifacts": ["/etc/passwd"]}, "expected_artifacts"),
        ({"precision": "fp8"}, "precision"),
        ({"gpu_count": -1}, "gpu_count"),
        ({"callback_url": "http://example.com/x"}, "callback_url"),
    ],
)
async def test_what_is_wrong_becomes_a_check(
    clean: Workspace, fields: dict[str, Any], field: str
) -> None:
    made = await clean.api.post("/v1/jobs/estimate", draft(**fields))
    assert made.status == 200
    assert problems(made.body, ESTIMATE) == []
    screening = made.body["screening"]
    assert screening["can_submit"] is False
    failed = [check for check in screening["checks"] if check["status"] == "failed"]
    assert field in [check["field"] for check in failed]
    refused = await clean.api.post("/v1/jobs", draft(**fields))
    assert refused.status in (400, 422), "what screening refuses, submit refuses"


@pytest.mark.parametrize(
    ("fields", "requirement"),
    [
        ({"image": "python:3.11", "model_size_gb": None}, "unspecified"),
        ({"image": "python:3.11", "model_size_gb": None, "gpu_required": False}, "cpu_only"),
        ({"image": "python:3.11", "model_size_gb": 1}, "gpu_required"),
        ({"image": "python:3.11", "model_size_gb": None, "gpu_type": "l4"}, "gpu_required"),
        ({"model_size_gb": None}, "gpu_required"),
    ],
)
async def test_acceleration_requirement(
    clean: Workspace, fields: dict[str, Any], requirement: str
) -> None:
    made = await clean.api.post("/v1/jobs/estimate", draft(**fields))
    assert made.status == 200
    assert made.body["classification"]["acceleration_requirement"] == requirement


async def test_no_capacity_is_said(clean: Workspace) -> None:
    made = await clean.api.post("/v1/jobs/estimate", draft(gpu_count=64))
    assert made.status == 200
    assert problems(made.body, ESTIMATE) == []
    assert made.body["capacity_status"]["immediate_capacity_confirmed"] is False
    assert made.body["unavailable_reason"] or made.body["warnings"]
