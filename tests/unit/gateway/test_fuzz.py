"""Whatever JSON comes in, decoding ends in a message or in a FieldError, and it agrees with the
reference where that has the same rules."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import contracts
from gateway.transcoder.decode import Decoders, new_message
from gateway.transcoder.encode import Encoders, dumps
from gateway.transcoder.values import FieldError
from tests.unit.gateway import zoo

NAMES = [field.name for field in zoo.message("Everything").DESCRIPTOR.fields]
DRAFT = [field.name for field in zoo.message("AnimalDraft").DESCRIPTOR.fields]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["cat", "big-dog", "2026-06-02T12:00:00Z", "1.5s", "AP8=", "true", "7"])
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*NAMES, *DRAFT, "x", "1", "true"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=6))
@settings(deadline=None)
def test_any_object_is_read_or_refused(data: dict[str, Any]) -> None:
    for name in ("Everything", "AnimalDraft"):
        message = zoo.message(name)()
        with suppress(FieldError):
            Decoders().of(message.DESCRIPTOR)(message, data, 1)
        # Also what was read before a refusal can be shown.
        shown = Encoders().of(message.DESCRIPTOR)(message)
        assert orjson.loads(dumps(shown)) is not None
        assert type(message).FromString(message.SerializeToString()) == message


# Fields whose JSON is the reference's too, with values that both take.
PLAIN = {
    "word": st.text(max_size=20),
    "flag": st.booleans(),
    "i32": st.integers(-(2**31), 2**31 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "u64": st.integers(0, 2**64 - 1),
    "f64": st.floats(allow_nan=False, allow_infinity=False),
    "numbers": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    "totals": st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**63 - 1), max_size=3),
    "free": st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.text(), max_size=3),
    "from": st.text(max_size=5),
}
OBJECTS = st.fixed_dictionaries({}, optional=PLAIN)


@given(OBJECTS, OBJECTS)
@settings(deadline=None)
def test_it_reads_what_the_reference_reads(outer: dict[str, Any], inner: dict[str, Any]) -> None:
    data = {**outer, "inner": inner}
    reference, message = zoo.message("Everything")(), zoo.message("Everything")()
    json_format.ParseDict(data, reference)
    Decoders().of(message.DESCRIPTOR)(message, data, 1)
    assert message == reference


@given(OBJECTS, OBJECTS)
@settings(deadline=None)
def test_what_is_shown_can_be_read_again(outer: dict[str, Any], inner: dict[str, Any]) -> None:
    message = zoo.message("Everything")()
    decoders = Decoders()
    decoders.of(message.DESCRIPTOR)(message, {**outer, "inner": inner}, 1)
    shown = orjson.loads(dumps(Encoders().of(message.DESCRIPTOR)(message)))
    # The word for "not set" is shown and not read; it is no value that a client may choose.
    for each in (shown, shown["inner"]):
        assert each.pop("kind") == "unspecified"
    again = zoo.message("Everything")()
    decoders.of(again.DESCRIPTOR)(again, shown, 1)
    assert again == message


@given(ANYTHING)
@settings(deadline=None)
def test_the_real_requests_too(data: Any) -> None:
    decoders = Decoders()
    for route in contracts.public_routes():
        if not route.body:
            continue
        request = route.method.input_type
        kind = request if route.body == "*" else request.fields_by_name[route.body].message_type
        assert kind is not None
        with suppress(FieldError):
            decoders.of(kind)(new_message(kind)(), data, 1)
