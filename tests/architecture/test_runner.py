"""The runner's own promises: budgets, the register of suites, and no silent skips in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runner import suites
from tests.runner.steps import Step, run_all
from tests.runner.suites import TESTS, Budget

SKIPPING = """
import pytest

@pytest.mark.skip(reason="no engine")
def test_skipped():
    assert False

@pytest.mark.allow_skip(reason="needs a GPU")
def test_allowed():
    pytest.skip("no GPU")
"""


def test_every_suite_has_a_budget_and_tests() -> None:
    assert not suites.unlisted(suites.read_budget(), suites.folders_with_tests())


def test_a_folder_without_a_budget_is_reported() -> None:
    budget = Budget(total_seconds=10, check_seconds=5, suites={"rest": 1, "chaos": 1})
    wrong = suites.unlisted(budget, {"rest", "unit", "new"})
    assert wrong == [
        "tests/chaos has a budget but no tests",
        "tests/new has tests but no budget in tests/budget.toml",
    ]


def test_closing_lines_are_summed() -> None:
    output = "x\n===== 1 failed, 3 passed, 2 skipped, 1 error in 0.10s =====\n"
    line = suites.closing_line(output)
    assert line is not None
    assert suites.counts(line) == {"failed": 2, "passed": 3, "skipped": 2}


def test_a_failing_step_is_told_with_its_output(capsys: pytest.CaptureFixture[str]) -> None:
    fail = Step("bad", [sys.executable, "-c", "print('why'); raise SystemExit(3)"])
    good = Step("good", [sys.executable, "-c", "print('quiet')"])
    outcomes = {outcome.name: outcome.passed for outcome in run_all([fail, good], slots=2)}
    assert outcomes == {"bad": False, "good": True}
    printed = capsys.readouterr().out
    assert "why" in printed
    assert "quiet" not in printed


@pytest.mark.parametrize(("ci", "failed"), [("true", 1), ("", 0)])
def test_a_skip_fails_in_ci_unless_allowed(tmp_path: Path, ci: str, failed: int) -> None:
    line = pytest_in(tmp_path, SKIPPING, ci)
    assert suites.counts(line)["failed"] == failed
    assert suites.counts(line)["skipped"] == 2 - failed


def test_a_skipped_file_fails_in_ci(tmp_path: Path) -> None:
    line = pytest_in(tmp_path, "import pytest\npytest.importorskip('no_such_module')\n", "true")
    assert suites.counts(line)["failed"] == 1


def pytest_in(folder: Path, text: str, ci: str) -> str:
    """Run pytest on one file beside our conftest; return its closing line."""
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = allow_skip(reason): may be skipped\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "."],
        cwd=folder,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    line = suites.closing_line(done.stdout)
    assert line is not None, done.stdout + done.stderr
    return line
