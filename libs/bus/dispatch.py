"""From a record to the function that applies its fact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from junglegrid.common.v1.event_pb2 import EventMeta

from libs.bus.events import BadRecord, decode
from libs.bus.port import Record
from libs.bus.topics import FACT, facts, topic_of
from libs.db import Tx
from libs.telemetry import metrics, trace

Handler = Callable[[Tx, EventMeta, Any], None]

_WANTS = "wants"
_LAZY = "lazy"

_unknown = metrics.counter(
    "grid_bus_unknown_facts_total", "Facts of a kind this release does not know.", ("topic",)
)


def only(wants: Callable[[Any], bool], handler: Handler) -> Handler:
    """`handler` for those facts alone that `wants` is true of. The others are not noted in the
    inbox, so a batch without any costs no commit; `wants` must look at nothing but the fact."""

    def chosen(tx: Tx, meta: EventMeta, fact: Any) -> None:
        handler(tx, meta, fact)

    vars(chosen).update(vars(handler))
    setattr(chosen, _WANTS, wants)
    return chosen


def lazily(handler: Handler, *, when: Callable[[], bool] = lambda: True) -> Handler:
    """`handler` for facts that may wait a moment for company, while `when` is true: a batch of
    nothing else is not applied until something urgent comes or the moment is over. Facts of a key
    keep their order, since what is urgent takes what waits along."""

    def patient(tx: Tx, meta: EventMeta, fact: Any) -> None:
        handler(tx, meta, fact)

    vars(patient).update(vars(handler))
    setattr(patient, _LAZY, when)
    return patient


@dataclass(frozen=True, slots=True)
class Routed:
    """A record with the handler that wants it."""

    record: Record
    handler: Handler
    meta: EventMeta
    message: Message

    def __call__(self, tx: Tx) -> None:
        token = trace.attach(self.meta.traceparent or None)
        try:
            self.handler(tx, self.meta, self.message)
        finally:
            trace.detach(token)


class Dispatch:
    """The handlers of one consumer, by topic and field of the oneof `fact`."""

    def __init__(self, consumer: str, handlers: Mapping[type[Message], Handler]) -> None:
        self._by_field: dict[str, dict[str, Handler]] = {}
        self._whole: dict[str, Handler] = {}
        for kind, handler in handlers.items():
            topic = topic_of(kind)
            name = kind.DESCRIPTOR.full_name
            if name == topic:
                self._whole[topic] = handler
                continue
            fields = self._by_field.setdefault(topic, {})
            fields |= {field: handler for field, carried in facts(topic).items() if carried == name}
        self.topics = sorted({*self._by_field, *self._whole})
        self.patient = any(hasattr(handler, _LAZY) for handler in handlers.values())
        if not self.topics:
            raise ValueError(f"consumer {consumer} has no handlers")

    def may_wait(self, record: Record) -> bool:
        """True when nobody needs the record's effect at once."""
        try:
            routed = self.route(record)
        except BadRecord:
            return False
        lazy = None if routed is None else getattr(routed.handler, _LAZY, None)
        return routed is None or (lazy is not None and lazy())

    def route(self, record: Record) -> Routed | None:
        """Who wants the record; None when nobody does: this consumer has no handler for that fact,
        or a newer release sent a kind that this one cannot know, which is counted. Raises
        BadRecord."""
        meta, event = decode(record)
        field = event.WhichOneof(FACT)
        if field is None:
            _unknown.labels(record.topic).inc()
            return None
        handler = self._by_field.get(record.topic, {}).get(field)
        if handler is not None:
            fact = getattr(event, field)
            wants = getattr(handler, _WANTS, None)
            return None if wants and not wants(fact) else Routed(record, handler, meta, fact)
        whole = self._whole.get(record.topic)
        return None if whole is None else Routed(record, whole, meta, event)
