"""The suites of tests/, their time budgets, and what pytest said at the end of each."""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
# Part of the check, so they have no budget of their own.
IN_CHECK = ("unit", "architecture")
CLOSING = re.compile(r"^(=+ )?\d+ (passed|failed|error|skipped|xfailed|deselected).* in [\d.]+s.*$")
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)")


@dataclass(frozen=True)
class Budget:
    """Seconds allowed, from tests/budget.toml."""

    total_seconds: float
    check_seconds: float
    suites: dict[str, float]


def read_budget(path: Path = TESTS / "budget.toml") -> Budget:
    table = tomllib.loads(path.read_text())
    return Budget(table["total_seconds"], table["check_seconds"], dict(table["suites"]))


def folders_with_tests(tests: Path = TESTS) -> set[str]:
    """Folders of tests/ that hold at least one test file."""
    return {path.relative_to(tests).parts[0] for path in tests.glob("*/**/test_*.py")}


def unlisted(budget: Budget, found: set[str]) -> list[str]:
    """What is wrong between the register of suites and the folders; empty when they agree."""
    missing = [
        f"tests/{name} has a budget but no tests" for name in sorted(set(budget.suites) - found)
    ]
    extra = sorted(found - set(budget.suites) - set(IN_CHECK))
    return missing + [
        f"tests/{name} has tests but no budget in tests/budget.toml" for name in extra
    ]


def pytest_command(paths: Sequence[str], *more: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *paths, *more]


def closing_line(output: str) -> str | None:
    """pytest's own last word, such as ``=== 3 passed in 0.12s ===``."""
    found = [line for line in output.splitlines() if CLOSING.match(line)]
    return found[-1] if found else None


def counts(line: str) -> Counter[str]:
    """The figures of a closing line; errors count as failed."""
    found: Counter[str] = Counter()
    for number, word in COUNT.findall(line):
        found["failed" if word.startswith("error") else word] += int(number)
    return found
