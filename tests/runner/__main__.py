"""``python -m tests.runner check | test | suite NAME``: what make's test targets run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

from tests.runner import suites
from tests.runner.steps import Outcome, Step, report, run_all, run_step
from tests.runner.suites import ROOT, Budget, pytest_command

SLOTS = 2  # as many as the smallest machine this is developed on has cores
CODE = ("libs", "services", "gateway", "deploy", "tests")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="format, lint, types, imports, contracts, unit tests")
    commands.add_parser("test", help="the check and every other suite")
    one = commands.add_parser("suite", help="one suite, under its budget")
    one.add_argument("name")
    options = parser.parse_args()
    budget = suites.read_budget()
    if options.command == "suite":
        return conclude([run_suite(options.name, budget.suites[options.name])])
    began = time.monotonic()
    outcomes = check(budget)
    if options.command == "test":
        outcomes += other_suites(budget)
        outcomes.append(total(time.monotonic() - began, budget))
    return conclude(outcomes)


def check(budget: Budget) -> list[Outcome]:
    began = time.monotonic()
    proto = run_step(Step("proto", [sys.executable, "deploy/proto/build.py"]))
    report(proto)
    if not proto.passed:
        return [proto]
    outcomes = [proto, *run_all(check_steps(), SLOTS)]
    outcomes.append(within("check", time.monotonic() - began, budget.check_seconds))
    return outcomes


def check_steps() -> list[Step]:
    """Independent steps, the longest first."""
    code = [name for name in CODE if (ROOT / name).is_dir()]
    image = ["build/protos/grid.binpb", "--path", "junglegrid"]
    unit = [f"tests/{name}" for name in suites.IN_CHECK]
    return [
        Step("unit", pytest_command(unit, "-n", "logical", "--durations=5")),
        Step("typecheck", [tool("mypy"), *code]),
        Step("imports", [sys.executable, "-m", "tests.architecture.import_rules"]),
        Step("format", [tool("ruff"), "format", "--check", "."]),
        Step("lint", [tool("ruff"), "check", "."]),
        Step("proto format", [tool("buf"), "format", "-d", "--exit-code", "protos"]),
        Step("proto lint", [tool("buf"), "lint", *image]),
        Step("proto breaking", [sys.executable, "deploy/proto/baseline.py", "check"]),
    ]


def tool(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


def other_suites(budget: Budget) -> list[Outcome]:
    wrong = suites.unlisted(budget, suites.folders_with_tests())
    outcomes = [Outcome(text, False, 0, "") for text in wrong]
    present = [
        name for name in budget.suites if not any(f"tests/{name} " in text for text in wrong)
    ]
    return outcomes + [run_suite(name, budget.suites[name]) for name in present]


def run_suite(name: str, seconds_max: float) -> Outcome:
    """Run one suite with its output shown as it comes: these take minutes."""
    print(f"\n--- {name} (budget {seconds_max:.0f} s)", flush=True)
    began = time.monotonic()
    command = pytest_command([f"tests/{name}"], "--durations=5")
    lines = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    seconds = time.monotonic() - began
    passed = running.returncode == 0 and seconds <= seconds_max
    return Outcome(f"{name} (budget {seconds_max:.0f} s)", passed, seconds, "".join(lines))


def total(seconds: float, budget: Budget) -> Outcome:
    return within("everything", seconds, budget.total_seconds)


def within(name: str, seconds: float, seconds_max: float) -> Outcome:
    return Outcome(f"{name} within {seconds_max:.0f} s", seconds <= seconds_max, seconds, "")


def conclude(outcomes: list[Outcome]) -> int:
    """Record the seconds, print the table of steps, then pytest's closing lines and their sum."""
    seconds = {outcome.name: round(outcome.seconds, 2) for outcome in outcomes}
    (ROOT / "build" / "seconds.json").write_text(json.dumps(seconds, indent=2) + "\n")
    print("\n" + "\n".join(outcome.line() for outcome in outcomes))
    closings = [line for outcome in outcomes if (line := suites.closing_line(outcome.output))]
    print("\n".join(closings))
    sums = sum((suites.counts(line) for line in closings), Counter[str]())
    print(
        f"{sums['passed']} passed, {sums['failed']} failed, {sums['skipped']} skipped", flush=True
    )
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
