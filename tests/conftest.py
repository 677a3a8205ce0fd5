"""Rules for every test: in CI a test may be skipped only where it says that it may."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

IN_CI = os.environ.get("CI") == "true"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and not may_skip(item):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI without allow_skip: {reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"a whole file was skipped in CI: {reason(report)}"
    return report


def may_skip(item: pytest.Item) -> bool:
    """Whether the test carries ``allow_skip`` with a reason."""
    marker = item.get_closest_marker("allow_skip")
    if marker is None:
        return False
    if not (marker.args or marker.kwargs.get("reason")):
        raise pytest.UsageError(f"{item.nodeid}: allow_skip needs a reason")
    return True


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    told = report.longrepr
    return str(told[2]) if isinstance(told, tuple) else str(told)
