"""The description of the whole API: what the contracts say, and the gateway's own routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.builtin import VERSION
from gateway.transcoder.errors import Statuses
from gateway.transcoder.openapi import Comments, Info, document
from gateway.transcoder.rules import Route

_TEXT = (
    "Estimate, submit, watch and cancel GPU jobs, and fetch what they produced.\n\n"
    "Send a scoped API key as `Authorization: Bearer jg_...`. Every answer carries "
    "`X-Request-Id`. Errors are JSON: `error.code` is a stable word, `error.message` says what to "
    "do. Repeat a POST safely by sending the same `Idempotency-Key`.\n\n"
    "A first job, from submit to result. `make up` writes the credentials; the key is a secret:\n\n"
    """    . .grid/credentials.env
    JOB_ID=$(curl -sS "$JUNGLE_GRID_API/v1/jobs" \\
      -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" -H "Content-Type: application/json" \\
      -d '{"name": "first-job", "workload_type": "batch", "model_size_gb": 1,
           "image": "pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime",
           "command": ["python", "-c",
             "print(42); open(\\"/workspace/artifacts/out.txt\\", \\"w\\").write(\\"42\\")"]}' \\
      | jq -r .job_id)
    curl -sSN "$JUNGLE_GRID_API/v1/jobs/$JOB_ID/logs/live" \\
      -H "Authorization: Bearer $JUNGLE_GRID_API_KEY"
    ARTIFACT_ID=$(curl -sS "$JUNGLE_GRID_API/v1/jobs/$JOB_ID/artifacts" \\
      -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" | jq -r '.artifacts[0].artifact_id')
    URL=$(curl -sS -X POST "$JUNGLE_GRID_API/v1/jobs/$JOB_ID/artifacts/$ARTIFACT_ID/download" \\
      -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" | jq -r .url)
    curl -sS "$URL" -o out.txt"""
)
# What readers look for first comes first; the contracts' services name their owners.
_GROUPS = {
    "JobService": ("Jobs", "Estimate, submit, watch and cancel."),
    "LogService": ("Logs", "What a job has written, by pages or as it comes."),
    "ArtifactService": ("Artifacts", "The files that a job leaves in `/workspace/artifacts`."),
    "InputService": ("Inputs", "Files and scripts to upload before a submit that names them."),
    "BillingService": ("Billing", "The workspace's wallet."),
}


def _plain(summary: str, kind: str, *refusals: tuple[str, str]) -> dict[str, Any]:
    answers = {"200": {"description": "OK", "content": {kind: {}}}}
    answers |= {code: {"description": text, "content": {kind: {}}} for code, text in refusals}
    return {
        "get": {"tags": ["Gateway"], "summary": summary, "security": [], "responses": answers},
    }


_OWN = {
    "/healthz": _plain("Says that the process answers", "application/json"),
    "/readyz": _plain(
        "Says whether every part answers",
        "application/json",
        ("503", "Some part does not; `parts` says which"),
    ),
    "/metrics": _plain(
        "Prometheus metrics, for the operator",
        "text/plain",
        ("403", "Not from this machine, or without the metrics token"),
    ),
    "/openapi.json": _plain("This description", "application/json"),
}


_COMMAND = ["python", "-c", "print(42)"]
_DRAFT = {
    "name": "first-job",
    "image": "pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime",
    "workload_type": "batch",
    "model_size_gb": 1,
    "command": _COMMAND,
}
# Bodies to start from, by operation.
EXAMPLES: dict[str, dict[str, Any]] = {
    "EstimateJob": _DRAFT,
    "SubmitJob": {**_DRAFT, "expected_artifacts": ["/workspace/artifacts/result.json"]},
    "CancelJob": {"reason": "not needed any more"},
    "CreateJobInput": {
        "filename": "work.py",
        "content_type": "text/x-python",
        "kind": "script",
    },
    "CompleteJobInput": {"token": "<token of the slot>", "filename": "work.py", "size_bytes": 1234},
}


def describe(routes: Iterable[Route], comments: Comments, statuses: Statuses) -> dict[str, Any]:
    """The OpenAPI 3.1 document that /openapi.json serves."""
    info = Info("Jungle Grid API", VERSION, _TEXT, statuses, _OWN)
    found = document(routes, comments, info)
    present = {tag["name"]: tag for tag in found["tags"]}
    found["tags"] = [
        {"name": name, "description": text}
        for service, (name, text) in _GROUPS.items()
        if present.pop(service, None)
    ] + list(present.values())
    for item in found["paths"].values():
        for operation in item.values():
            operation["tags"] = [_GROUPS.get(tag, (tag,))[0] for tag in operation["tags"]]
            example = EXAMPLES.get(operation.get("operationId", ""))
            if example is not None:
                operation["requestBody"]["content"]["application/json"]["example"] = example
    return found
