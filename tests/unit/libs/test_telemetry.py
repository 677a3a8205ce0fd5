"""Logs without secrets, metrics made once, traces carried without an SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libs.telemetry import debugging, logger, metrics, setup, trace
from libs.telemetry.redaction import REDACTED, redact

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _default_logs() -> Iterator[None]:
    yield
    setup("grid")
    trace.stop_exporting()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    setup("jobs", "info", json=True)
    logger("here").info("started", count=3, place=Path("/x"))
    logger("here").debug("too fine")
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "started",
        "level": "info",
        "service": "jobs",
        "component": "here",
        "count": 3,
        "place": "/x",
    }


def test_the_standard_modules_warnings_take_the_same_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import logging

    setup("jobs", json=True)
    logging.getLogger("library").warning("careful %d", 1)
    (line,) = lines(capsys)
    assert (line["event"], line["component"]) == ("careful 1", "library")


def test_the_trace_is_on_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    setup("jobs", json=True)
    parent = trace.new_traceparent()
    token = trace.attach(parent)
    logger("x").info("with")
    trace.detach(token)
    logger("x").info("without")
    first, second = lines(capsys)
    assert first["trace_id"] == parent[3:35]
    assert "trace_id" not in second


CANARY = "canary-5f1e"


@pytest.mark.parametrize(
    "event",
    [
        {"api_key": CANARY},
        {"Authorization": CANARY},
        {"db_password": CANARY},
        {"environment": {"HOME": CANARY}},
        {"nested": [{"callback_token": CANARY}]},
        {"nested": {"deeper": ({"secretValue": CANARY},)}},
        {"url": f"http://h/objects/x?size=1&signature={CANARY}&kid=1"},
        {"url": f"https://h/b?X-Amz-Signature={CANARY}"},
        {"event": f"sent Authorization: Bearer {CANARY}"},
        {"exception": f"KeyError: 'jg_abcdef{'A' * 32}{CANARY.replace('-', '')}'"},
    ],
)
def test_no_secret_gets_through(event: dict[str, Any]) -> None:
    assert CANARY not in json.dumps(redact(None, "", event), default=str)
    assert "canary5f1e" not in json.dumps(redact(None, "", event), default=str)


def test_harmless_values_stay() -> None:
    event = {"job_id": "job_1", "count": 2, "url": "http://h/x?size=1", "none": None}
    assert redact(None, "", event) == event
    assert redact(None, "", {"token": None}) == {"token": REDACTED}


def test_a_traceback_shows_no_local_variable(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        hidden = CANARY
        raise RuntimeError(f"length {len(hidden)}")

    for as_json in (True, False):
        setup("jobs", json=as_json)
        try:
            fail()
        except RuntimeError:
            logger("x").exception("broken")
        text = capsys.readouterr().err
        assert "length 11" in text
        assert CANARY not in text


def test_the_level_is_known_without_a_logger() -> None:
    setup("x", "debug", json=True)
    assert debugging()
    setup("x", "info", json=True)
    assert not debugging()


def test_a_metric_is_made_once_and_never_of_two_kinds() -> None:
    first = metrics.counter("grid_test_total", "For a test.", ("who",))
    assert metrics.counter("grid_test_total", "For a test.", ("who",)) is first
    with pytest.raises(ValueError, match="already a Counter"):
        metrics.gauge("grid_test_total", "For a test.")
    first.labels("a").inc(2)
    first.labels("b").inc()
    assert metrics.value("grid_test_total", who="a") == 2
    assert metrics.value("grid_test_total", who="nobody") == 0
    assert metrics.total("grid_test_total") == 3
    assert b'grid_test_total{who="a"} 2.0' in metrics.exposition()


GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("text", [GOOD, GOOD.replace("00-4b", "01-4b") + "-more"])
def test_a_well_formed_context_is_taken_over(text: str) -> None:
    token = trace.attach(text)
    assert trace.current_traceparent() == text
    trace.detach(token)
    assert trace.current_traceparent() is None


@pytest.mark.parametrize(
    "text",
    [None, "", "x", GOOD.upper(), GOOD + "-more", "ff" + GOOD[2:],
     "00-" + "0" * 32 + GOOD[35:], GOOD[:36] + "0" * 16 + "-01", GOOD[:-1]],
)  # fmt: skip
def test_a_malformed_context_starts_a_new_trace(text: str | None) -> None:
    token = trace.attach(text)
    made = trace.current_traceparent()
    trace.detach(token)
    assert trace.valid(made)
    assert made != text


def test_spans_are_recorded_under_the_carried_parent() -> None:
    exporter = InMemorySpanExporter()
    trace.export_to(exporter, "jobs", batch=False)
    assert trace.recording()
    token = trace.attach(GOOD)
    with trace.span("outer", job_id="job_1"):
        inside = trace.current_traceparent()
        with trace.span("inner"):
            pass
    assert trace.current_traceparent() == GOOD
    trace.detach(token)
    inner, outer = exporter.get_finished_spans()
    assert outer.parent is not None
    assert inner.parent is not None
    assert f"{outer.parent.span_id:016x}" == GOOD[36:52]
    assert f"{outer.context.trace_id:032x}" == GOOD[3:35]
    assert inner.parent.span_id == outer.context.span_id
    assert inside is not None
    assert inside[36:52] == f"{outer.context.span_id:016x}"
    assert outer.attributes is not None
    assert outer.attributes["job_id"] == "job_1"


def test_the_sdk_is_not_imported_without_an_exporter() -> None:
    program = (
        "import sys, libs.rpc\n"
        "from libs.telemetry import trace\n"
        "with trace.span('x'): pass\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
