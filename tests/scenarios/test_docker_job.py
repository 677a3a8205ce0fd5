"""The main job in a real container: same request, same answers, another runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import docker
from tests.support.stack import python, stack

WORK = """
import os, sys
from pathlib import Path
print("image", Path("/etc/passwd").read_text().splitlines()[0])
print("uid", os.getuid(), "argv", sys.argv)
try:
    Path("/usr/touched").write_text("x")
except OSError as error:
    print("root is read-only:", error.strerror)
print("to stderr", file=sys.stderr)
Path("/workspace/artifacts/out.txt").write_text("from a container")
sys.exit(5)
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.Engine]:
    lacking = docker.missing()
    if lacking:
        pytest.skip(f"no container engine: {lacking}")
    with docker.engine() as running:
        yield running


@pytest.mark.timeout(120)
async def test_a_job_runs_in_a_container(engine: docker.Engine) -> None:
    async with stack(runtime="docker", arguments=("--docker-socket", engine.socket)) as whole:
        job_id = await whole.submit(image=docker.IMAGE, command=python(WORK))
        job = await whole.finished(job_id)
        assert (job["status"], job["exit_code"], job["runtime"]) == ("failed", 5, "docker")
        entries = await whole.lines(job_id)
        out = [e["message"] for e in entries if e["stream"] == "stdout"]
        assert out[0].startswith("image root:")
        assert out[1].startswith("uid ")
        assert not out[1].startswith("uid 0 ")
        assert out[2].startswith("root is read-only")
        assert [e["message"] for e in entries if e["stream"] == "stderr"] == ["to stderr"]
        (artifact,) = (await whole.api.call("GET", f"/v1/jobs/{job_id}/artifacts"))["artifacts"]
        path = f"/v1/jobs/{job_id}/artifacts/{artifact['artifact_id']}/download"
        grant = await whole.api.call("POST", path)
        assert await whole.api.get(grant["url"]) == b"from a container"
        left = engine.command("ps", "-aq").split()
        assert left == [], "a container outlived its job"


@pytest.mark.timeout(120)
async def test_an_image_that_cannot_be_had_fails_the_job_with_its_reason(
    engine: docker.Engine,
) -> None:
    async with stack(runtime="docker", arguments=("--docker-socket", engine.socket)) as whole:
        job_id = await whole.submit(image="localhost:1/no/such:image")
        job = await whole.finished(job_id, 90)
        assert job["status"] in ("failed", "rejected")
        assert "image" in job["failure"]["summary"].lower()
        settled = await whole.settled(job_id)
        assert settled["billing"]["final_cost_usd"] == 0
