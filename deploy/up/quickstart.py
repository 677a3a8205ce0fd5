"""The first job: the contract's quickstart, told step by step."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.up.api import Api, ApiError
from deploy.up.console import Console

# Runs inside the job. It looks at where it is, so that the reader sees that it really ran.
SCRIPT = b"""\
import os, platform, sys, time
from pathlib import Path

print("hello from", os.environ["JUNGLEGRID_JOB_ID"], "attempt", os.environ["JUNGLEGRID_ATTEMPT"])
print("python", platform.python_version(), "uid", os.getuid(), "pid", os.getpid())
print("files at the top:", " ".join(sorted(os.listdir("/"))))
words = Path("/workspace/inputs/words.txt").read_text().split()
lines = []
for number, word in enumerate(words, 1):
    print(f"{number}/{len(words)} {word}", flush=True)
    lines.append(f"{number} {word[::-1]}")
    time.sleep(0.3)
Path("/workspace/artifacts/transcript.txt").write_text("\\n".join(lines) + "\\n")
print("wrote transcript.txt", file=sys.stderr)
"""
WORDS = b"the grid runs what you send it\n"
ARTIFACT = "transcript.txt"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the quickstart left behind: the job, its file on disk, its cost in USD."""

    job_id: str
    status: str
    file: Path | None
    cost_usd: float | None


async def run(api: Api, console: Console, folder: Path) -> Outcome:
    """Estimates, uploads, submits, follows and downloads. Raises ApiError when refused."""
    draft = _draft()
    await _estimate(api, console, draft)
    script = await _upload(api, "quickstart.py", "text/x-python", "script", SCRIPT)
    words = await _upload(api, "words.txt", "text/plain", "input", WORDS)
    console.step("uploaded quickstart.py and words.txt by signed URL")
    body = {**draft, "script_files": [{"input_id": script}], "input_files": [{"input_id": words}]}
    job = await api.call("POST", "/v1/jobs", body)
    job_id = job["job_id"]
    console.step(f"submitted {job_id}: {job['status']}, {job['reserved_usd']:.4f} USD held")
    await _follow(api, console, job_id)
    return await _collect(api, console, job_id, folder)


def _draft() -> dict[str, Any]:
    return {
        "name": "quickstart",
        "image": "pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime",
        "workload_type": "batch",
        "model_size_gb": 1,
        "command": ["python", "/workspace/scripts/quickstart.py"],
        "expected_artifacts": [f"/workspace/artifacts/{ARTIFACT}"],
        "timeout_seconds": 300,
    }


async def _estimate(api: Api, console: Console, draft: dict[str, Any]) -> None:
    estimate = await api.call("POST", "/v1/jobs/estimate", draft)
    if not estimate["available"]:
        raise ApiError(f"the estimate says no: {estimate['unavailable_reason']}")
    console.step(
        f"estimate: {estimate['likely_gpu_type'] or 'CPU'} at "
        f"{estimate['estimated_hourly_rate_usd']:.2f} USD an hour, starts within "
        f"{estimate['estimated_queue_wait_max_sec']} s"
    )


async def _upload(api: Api, filename: str, content_type: str, kind: str, data: bytes) -> str:
    slot = await api.call(
        "POST",
        "/v1/job-inputs",
        {"filename": filename, "content_type": content_type, "kind": kind},
    )
    upload = slot["upload"]
    await api.put(upload["upload_url"], data, {"Content-Type": content_type, **upload["headers"]})
    path = f"/v1/job-inputs/{upload['input_id']}/complete"
    await api.call("POST", path, {"token": upload["token"], "size_bytes": len(data)})
    return str(upload["input_id"])


async def _follow(api: Api, console: Console, job_id: str) -> None:
    """Shows lifecycle events and log lines side by side until the stream says terminal."""
    shown: set[str] = set()
    async for name, data in api.events(f"/v1/jobs/{job_id}/logs/live"):
        if name in ("status", "terminal", "heartbeat"):
            await _show_events(api, console, job_id, shown)
        if name == "log":
            console.log(data["stream"], data["message"])
        if name == "notice":
            console.step(data["message"], "yellow")
        if name == "terminal":
            return


async def _show_events(api: Api, console: Console, job_id: str, shown: set[str]) -> None:
    listing = await api.call("GET", f"/v1/jobs/{job_id}/events")
    for event in listing["items"]:
        if event["id"] not in shown:
            shown.add(event["id"])
            colour = "yellow" if event["level"] != "info" else "bold"
            console.step(f"{event['type']:<28} {event['message']}", colour)


async def _collect(api: Api, console: Console, job_id: str, folder: Path) -> Outcome:
    job = await api.call("GET", f"/v1/jobs/{job_id}")
    runtime = await api.call("GET", f"/v1/jobs/{job_id}/runtime")
    console.step(f"{job['status']}, exit code {runtime['exit_code']}, ran in {job['runtime']}")
    listing = await api.call("GET", f"/v1/jobs/{job_id}/artifacts")
    file = None
    for artifact in listing["artifacts"]:
        file = await _download(api, console, job_id, artifact, folder)
    cost = await _cost(api, job_id)
    return Outcome(job_id, job["status"], file, cost)


async def _download(
    api: Api, console: Console, job_id: str, artifact: dict[str, Any], folder: Path
) -> Path:
    path = f"/v1/jobs/{job_id}/artifacts/{artifact['artifact_id']}/download"
    grant = await api.call("POST", path)
    data = await api.get(grant["url"])
    if hashlib.sha256(data).hexdigest() != artifact["sha256"]:
        raise ApiError(f"{artifact['filename']} came back with another digest than was stored")
    # The name is a job's word: only its last part may choose a file here.
    target = folder / Path(artifact["filename"]).name
    folder.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    console.step(f"downloaded {target} ({len(data)} bytes, SHA-256 checked)", "green")
    return target


async def _cost(api: Api, job_id: str) -> float | None:
    """The settled cost. Settlement follows the end by a record, so it is asked for a few times."""
    for pause in (0.1, 0.2, 0.4, 0.8, 1.6):
        job = await api.call("GET", f"/v1/jobs/{job_id}")
        if job["billing"]["final_cost_usd"] is not None:
            return float(job["billing"]["final_cost_usd"])
        await asyncio.sleep(pause)
    return None
