"""Between event messages and rows of the outbox."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.message import DecodeError, Message
from junglegrid.common.v1.event_pb2 import EventMeta

from libs.bus.port import Record
from libs.bus.topics import FACT, message_class
from libs.db import OutboxEvent
from libs.ids import IdSource
from libs.telemetry.trace import current_traceparent

TRACEPARENT = "traceparent"
# Every consumer of this process gets the same records within moments: an event is parsed once.
_RECENT_MAX = 1024
_recent: dict[str, tuple[Record, EventMeta, Message]] = {}


class BadRecord(ValueError):
    """A record whose payload is not the message of its topic, or lacks what every event has."""


def event(
    ids: IdSource,
    message: Message,
    *,
    aggregate_id: str,
    aggregate_seq: int,
    workspace_id: str,
    occurred_time: datetime,
) -> OutboxEvent:
    """Fills `message.meta`, with a new event id and the current trace, and wraps the message.

    `workspace_id` is empty for facts of the grid itself; `occurred_time` is `tx.now()`.
    """
    meta: EventMeta = message.meta  # type: ignore[attr-defined]
    meta.event_id = ids.new("evt")
    meta.aggregate_id = aggregate_id
    meta.aggregate_seq = aggregate_seq
    meta.workspace_id = workspace_id
    meta.traceparent = current_traceparent() or ""
    meta.occurred_time.FromDatetime(occurred_time)
    return outbox_event(message)


def outbox_event(message: Message) -> OutboxEvent:
    """The outbox row of an event whose `meta` is filled. Raises ValueError when it is not, or when
    no fact is set: such a record would be of no use to anyone, for ever."""
    meta: Any = message.meta  # type: ignore[attr-defined]
    name = message.DESCRIPTOR.full_name
    if not meta.event_id or not meta.aggregate_id or meta.aggregate_seq < 1:
        raise ValueError(f"{name}: meta needs event_id, aggregate_id and aggregate_seq >= 1")
    if message.WhichOneof(FACT) is None:
        raise ValueError(f"{name}: no fact is set")
    return OutboxEvent(
        event_id=meta.event_id,
        topic=name,
        key=meta.aggregate_id,
        aggregate_seq=meta.aggregate_seq,
        payload=message.SerializeToString(),
        headers={TRACEPARENT: meta.traceparent} if meta.traceparent else {},
    )


def record(event: OutboxEvent) -> Record:
    """The record that tells `event`."""
    return Record(event.topic, event.key, event.event_id, event.payload, event.headers)


def decode(record: Record) -> tuple[EventMeta, Message]:
    """The event in `record` and its metadata, to be read only: other consumers get the same
    objects. Raises BadRecord."""
    known = _recent.get(record.event_id)
    if known is not None and known[0].payload is record.payload and known[0].topic == record.topic:
        return known[1], known[2]
    try:
        message = message_class(record.topic).FromString(record.payload)
    except DecodeError as error:
        raise BadRecord(f"{record.topic}: not its message: {error}") from error
    meta: EventMeta = message.meta  # type: ignore[attr-defined]
    if meta.event_id != record.event_id:
        raise BadRecord(f"{record.topic}: record {record.event_id} holds '{meta.event_id}'")
    _recent[record.event_id] = (record, meta, message)
    if len(_recent) > _RECENT_MAX:
        _recent.pop(next(iter(_recent)), None)
    return meta, message
