"""The contracts' own curl scripts against a grid as `make up` starts it.

The shell as printed in the contracts eats the inner quotes of the Quickstart's -c text, so what
arrives is `Path(/workspace/artifacts/transcript.txt)`: not Python. The script is run as printed to
see that the API takes it, and with its quotes escaped to see the artifact.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from tests.support.stack import Stack, stack

SCRIPTS = Path(__file__).parent / "curl"


async def replies(whole: Stack, script: str) -> list[dict[str, Any]]:
    """What the curl commands of `script` print, one JSON document each."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        env={
            **os.environ,
            "JUNGLE_GRID_API": whole.credentials.url,
            "JUNGLE_GRID_API_KEY": whole.credentials.api_key,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    found, decoder, text = [], json.JSONDecoder(), printed.decode()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


async def test_the_smoke_test_runs_under_allow() -> None:
    async with stack(runtime="sandbox", overrides={"GRID_JOBS__CPU_POLICY": "allow"}) as whole:
        estimate, job, runtime = await replies(whole, (SCRIPTS / "smoke.sh").read_text())
        assert estimate["available"] is True
        assert job["status"] in ("queued", "assigned", "running", "completed")
        # The script does not wait: before the start the contract says 404 with these words.
        if "error" in runtime:
            assert runtime["error"]["code"] == "NOT_FOUND"
            assert runtime["error"]["message"] == "job runtime not available yet"
        done = await whole.finished(job["job_id"])
        assert (done["status"], done["exit_code"]) == ("completed", 0)
        assert [entry["message"] for entry in await whole.lines(job["job_id"])] == ["42"]


async def test_the_quickstart_runs_under_strict() -> None:
    async with stack(runtime="sandbox") as whole:
        text = (SCRIPTS / "quickstart.sh").read_text()
        estimate, job, events, logs, artifacts = await replies(whole, text)
        assert estimate["screening"]["can_submit"] is True
        assert events["items"][0]["sequence"] == 10
        assert logs["job_id"] == job["job_id"]
        assert list(artifacts) == ["artifacts"]
        await whole.finished(job["job_id"])
        quoted = text.replace("'/workspace", "'\\''/workspace").replace("txt')", "txt'\\'')")
        quoted = quoted.replace("'done'", "'\\''done'\\''")
        _, job, *_ = await replies(whole, quoted)
        done = await whole.finished(job["job_id"])
        assert (done["status"], done["exit_code"]) == ("completed", 0)
        listing = await whole.api.call("GET", f"/v1/jobs/{job['job_id']}/artifacts")
        (artifact,) = listing["artifacts"]
        path = f"/v1/jobs/{job['job_id']}/artifacts/{artifact['artifact_id']}/download"
        grant = await whole.api.call("POST", path)
        assert artifact["filename"] == "transcript.txt"
        assert await whole.api.get(grant["url"]) == b"done"
