"""Rules that no linter has: sizes, names, where the environment and the clock are read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import CODE, ROOT, our_files, parsed, python_files, shown

LINES_MAX = 400
FUNCTION_LINES_MAX = 70
SIZED = {".py", ".pyi", ".proto", ".sh", ".ts", ".tsx", ".css", ".html", ".yaml", ".toml"}
VAGUE = {"util", "utils", "helper", "helpers", "manager", "managers", "misc"}
# The client runs on a person's machine, where variables are how it is configured.
ENVIRONMENT_READERS = ("libs/config", "deploy/", "tests/", "libs/client/")
SLEEPERS = ("libs/clock", "libs/failpoints", "libs/client/")
SHORT_SECONDS = 1


def test_files_are_short() -> None:
    long = {
        shown(path): lines
        for path in our_files()
        if path.suffix in SIZED and (lines := length(path)) > LINES_MAX
    }
    assert not long


def length(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_functions_are_short() -> None:
    long = [
        f"{shown(path)}:{node.lineno} {node.name}"
        for path in python_files(*CODE)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert not long


def test_names_say_what_is_inside() -> None:
    vague = {
        shown(path)
        for path in our_files()
        for part in path.relative_to(ROOT).with_suffix("").parts
        if VAGUE & set(re.split(r"[_.-]", part.lower()))
    }
    assert not vague


def test_services_and_gateway_do_not_know_the_mode() -> None:
    knowing = [
        shown(path)
        for path in our_files()
        if path.relative_to(ROOT).parts[0] in ("services", "gateway")
        and b"embedded" in path.read_bytes().lower()
    ]
    assert not knowing


def test_environment_is_read_in_one_place() -> None:
    readers = [
        f"{shown(path)}:{line}"
        for path in python_files(*CODE)
        if not shown(path).startswith(ENVIRONMENT_READERS)
        for line in environment_reads(parsed(path))
    ]
    assert not readers


def environment_reads(tree: ast.Module) -> Iterator[int]:
    names = {"environ", "environb", "getenv"}
    read = {("os", name) for name in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            if names & {alias.name for alias in node.names}:
                yield node.lineno
        elif isinstance(node, ast.Attribute) and (name_of(node.value), node.attr) in read:
            yield node.lineno


@pytest.mark.parametrize("folder", ["libs", "services", "gateway"])
def test_nothing_sleeps_past_the_clock(folder: str) -> None:
    sleeping = [
        f"{shown(path)}:{line}"
        for path in python_files(folder)
        if not shown(path).startswith(SLEEPERS)
        for line in sleeps(parsed(path))
    ]
    assert not sleeping


def sleeps(tree: ast.Module) -> Iterator[int]:
    """Lines that wait past the clock, or on any clock for a moment: both are polling.

    Threads and small processes without a loop may use time.sleep; ruff keeps it out of coroutines.
    """
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr != "sleep" or name_of(node.func.value) == "time":
            continue
        seconds = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else 1
        short = isinstance(seconds, int | float) and 0 < seconds < SHORT_SECONDS
        if short or (name_of(node.func.value) == "asyncio" and seconds != 0):
            yield node.lineno


def name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""
