"""Without root the sandbox says which layers are missing, and refuses unless told otherwise."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
LACKED = {
    "slot_user", "workspace_limit", "cgroup_memory", "cgroup_pids", "cgroup_cpu",
}  # fmt: skip


async def opened_as_nobody(mode: str) -> dict[str, Any]:
    """In a user namespace of bwrap's: a user id that is not 0, and no capability anywhere."""
    process = await asyncio.create_subprocess_exec(
        "bwrap", "--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--unshare-user",
        "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--die-with-parent",
        sys.executable, "-m", "tests.support.unprivileged", mode,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    told: dict[str, Any] = json.loads(output)
    assert told["euid"] == 1000
    return told


async def test_it_refuses_and_names_what_is_missing() -> None:
    told = await opened_as_nobody("secure")
    assert set(told["missing"]) == LACKED
    assert told["reason"] == "SANDBOX_INCOMPLETE"
    assert all(layer in told["message"] for layer in LACKED)
    assert "--insecure-sandbox" in told["message"]


async def test_it_runs_when_that_is_allowed_and_still_says_what_is_missing() -> None:
    told = await opened_as_nobody("insecure")
    assert set(told["missing"]) == LACKED
    assert (told["lines"], told["code"]) == (["ran"], 0)
