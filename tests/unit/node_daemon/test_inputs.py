"""Where an input may be put."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.errors import InvalidRequest
from services.node_daemon.inputs import target
from services.node_daemon.runtime.port import Staging

STAGING = Staging(Path("/slots/3/workspace"), 1000, 1000)


@pytest.mark.parametrize(
    ("mount", "inside"),
    [
        ("/workspace/inputs/a.txt", "inputs/a.txt"),
        ("/workspace/scripts/deep/er/run.py", "scripts/deep/er/run.py"),
        ("inputs/a b", "inputs/a b"),
    ],
)
def test_places_in_the_workspace(mount: str, inside: str) -> None:
    assert target(STAGING, mount) == STAGING.workspace / inside


@pytest.mark.parametrize(
    "mount",
    [
        "",
        "/",
        "/workspace",
        "/workspace/inputs",
        "/workspace/artifacts/a",
        "/workspace/inputs/../artifacts/a",
        "/workspace/inputs/../../../etc/passwd",
        "/etc/passwd",
        "../inputs/x",
        "inputs/../../x",
        "/workspace/inputs/a\0b",
        "/workspacex/inputs/a",
    ],
)
def test_places_outside_are_refused(mount: str) -> None:
    with pytest.raises(InvalidRequest):
        target(STAGING, mount)
