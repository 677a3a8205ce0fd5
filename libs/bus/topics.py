"""The register of topics. A topic is named after its one message; the class is imported when it is
first needed, so that reading this register needs no generated code."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

FACT = "fact"
DEAD_LETTERS = ".dlq"

# Topic -> the generated module that holds its message.
TOPICS: dict[str, str] = {
    "junglegrid.jobs.v1.JobEvent": "junglegrid.jobs.v1.job_event_pb2",
    "junglegrid.scheduling.v1.PlacementEvent": "junglegrid.scheduling.v1.placement_event_pb2",
    "junglegrid.nodes.v1.NodeEvent": "junglegrid.nodes.v1.node_event_pb2",
    "junglegrid.nodes.v1.LeaseEvent": "junglegrid.nodes.v1.node_event_pb2",
    "junglegrid.billing.v1.BillingEvent": "junglegrid.billing.v1.billing_event_pb2",
}
_extra: dict[str, type[Message]] = {}


class UnknownTopic(KeyError):
    """A topic that is not in the register."""


def register(message: type[Message]) -> str:
    """Adds a topic at run time (tests, other contracts); returns its name."""
    name: str = message.DESCRIPTOR.full_name
    _extra[name] = message
    return name


def message_class(topic: str) -> type[Message]:
    """The class of the topic's records."""
    found = _extra.get(topic)
    return found if found is not None else _generated(topic)


@cache
def _generated(topic: str) -> type[Message]:
    if topic not in TOPICS:
        raise UnknownTopic(f"{topic} is not in libs/bus/topics.py")
    found: type[Message] = getattr(import_module(TOPICS[topic]), topic.rpartition(".")[2])
    return found


def facts(topic: str) -> dict[str, str]:
    """The facts of a topic: field of its oneof `fact` -> full name of the field's message."""
    oneof = message_class(topic).DESCRIPTOR.oneofs_by_name[FACT]
    return {f.name: f.message_type.full_name for f in oneof.fields if f.message_type}


def topic_of(fact: type[Message]) -> str:
    """The one topic that carries `fact`, which is an event message itself or one of its facts."""
    name: str = fact.DESCRIPTOR.full_name
    if name in TOPICS or name in _extra:
        return name
    package = fact.DESCRIPTOR.file.package
    found = [
        topic
        for topic in (*TOPICS, *_extra)
        if topic.startswith(f"{package}.") and name in facts(topic).values()
    ]
    if len(found) != 1:
        raise UnknownTopic(f"{name} is carried by {found or 'no topic'}; it must be exactly one")
    return found[0]
