"""Every service has the rooms of the plan, and no empty ones for form's sake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.tree import (
    DAEMON,
    DAEMON_ROOMS,
    ROOMS,
    ROOT,
    SERVICES,
    has_room,
)

README_LINES_MAX = 60
# README row -> the room that exists exactly when the row is not "none".
DOORS_BY_ROW = {"Consumes": "consumers", "Time": "loops"}


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_every_room(name: str) -> None:
    missing = [room for room in ROOMS if not has_room(ROOT / "services" / name, room)]
    assert not missing, f"services/{name} lacks {missing}"


def test_daemon_has_its_rooms() -> None:
    missing = [room for room in DAEMON_ROOMS if not has_room(ROOT / "services" / DAEMON, room)]
    assert not missing, f"services/{DAEMON} lacks {missing}"


def test_there_are_no_other_services() -> None:
    folders = {path.name for path in (ROOT / "services").iterdir() if any(path.glob("*.py"))}
    assert folders <= {*SERVICES, DAEMON}


@pytest.mark.parametrize("row", DOORS_BY_ROW)
@pytest.mark.parametrize("name", SERVICES)
def test_door_exists_when_the_readme_says_so(name: str, row: str) -> None:
    told = readme_row(ROOT / "services" / name / "README.md", row)
    there = has_room(ROOT / "services" / name, DOORS_BY_ROW[row])
    assert there == (told.lower().strip(" .") != "none"), f"{row}: {told!r}, room there: {there}"


@pytest.mark.parametrize("name", SERVICES)
def test_readme_is_one_page(name: str) -> None:
    lines = (ROOT / "services" / name / "README.md").read_text().splitlines()
    assert len(lines) <= README_LINES_MAX


def readme_row(readme: Path, row: str) -> str:
    """The text of ``| Consumes | ... |`` (bold or not), or of a line ``Consumes: ...``."""
    pattern = rf"^[|\s*-]*{row}[*\s]*[|:][*\s]*(.+?)\s*\|?\s*$"
    found = re.search(pattern, readme.read_text(), re.MULTILINE | re.IGNORECASE)
    assert found, f"{readme.relative_to(ROOT)} has no row {row!r}"
    return found.group(1)
