"""What the tree should look like, in one place for the import rules and the tests."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SERVICES = (
    "jobs",
    "scheduling",
    "nodes",
    "logs",
    "artifacts",
    "billing",
    "identity",
    "webhooks",
)
ROOMS = (
    "README.md",
    "config",
    "errors",
    "domain",
    "tables",
    "repository",
    "service",
    "convert",
    "rpc",
    "module",
    "migrations",
)
DAEMON = "node_daemon"
DAEMON_ROOMS = (
    "README.md",
    "module",
    "config",
    "domain",
    "session",
    "shim",
    "runtime",
    "gpu",
    "spool",
    "uploads",
)
# A service may have one more room, pure, under one of these names.
EXTRA_ROOMS = ("planner", "pricing", "session", "tail")
CODE = ("libs", "services", "gateway", "deploy", "tests")


def has_room(service: Path, room: str) -> bool:
    """A room is a module, a package of the same name, or the file itself."""
    if room.endswith(".md"):
        return (service / room).is_file()
    return (service / f"{room}.py").is_file() or any((service / room).glob("*.py"))


@cache
def our_files() -> tuple[Path, ...]:
    """Every file in git's index, and every new one that git would not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return tuple(sorted(path for path in paths if path.is_file()))


def python_files(*folders: str) -> Iterator[Path]:
    """Our Python files below the given top-level folders."""
    for path in our_files():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders:
            yield path


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))
