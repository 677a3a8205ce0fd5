"""Which facts reach a handler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1.job_event_pb2 import JobEvent, JobFinished

from libs.bus import Record, only
from libs.bus.dispatch import Dispatch
from libs.bus.events import decode

TOPIC = "junglegrid.jobs.v1.JobEvent"


def finished(*, has_callback: bool) -> Record:
    meta = EventMeta(event_id="evt_1", aggregate_id="job_1", aggregate_seq=1)
    event = JobEvent(meta=meta, finished=JobFinished(has_callback=has_callback))
    return Record(TOPIC, "job_1", "evt_1", event.SerializeToString())


def test_only_what_is_wanted_is_routed() -> None:
    heard: list[Any] = []
    handler = only(lambda fact: bool(fact.has_callback), lambda tx, meta, fact: heard.append(fact))
    dispatch = Dispatch("test", {JobFinished: handler})
    assert dispatch.route(finished(has_callback=False)) is None
    routed = dispatch.route(finished(has_callback=True))
    assert routed is not None
    routed(None)  # type: ignore[arg-type]
    assert [fact.has_callback for fact in heard] == [True]


def test_an_event_is_parsed_once_for_all_consumers() -> None:
    record = finished(has_callback=True)
    meta, event = decode(record)
    assert decode(replace(record, offset=7)) == (meta, event)
    assert decode(record)[1] is event
    other = replace(finished(has_callback=False), event_id=record.event_id)
    assert other.payload != record.payload
    assert decode(other)[1] != event
