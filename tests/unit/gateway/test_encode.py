"""JSON of replies, exactly as the field rules say."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from google.protobuf import json_format

from gateway.transcoder.decode import Decoders
from gateway.transcoder.encode import Encoders, dumps
from gateway.transcoder.values import FieldError
from tests.unit.gateway import zoo


def shown(message: Any) -> Any:
    return orjson.loads(dumps(Encoders().of(message.DESCRIPTOR)(message)))


def test_an_empty_message_shows_zero_values_and_nulls() -> None:
    assert shown(zoo.message("Animal")()) == {
        "animal_id": "",
        "id": "",
        "name": "",
        "kind": "unspecified",
        "fed_at": None,
        "price_usd": 0,
        "cost_usd": None,
        "actual_cost_usd": None,
        "weight_kg": None,
        "favourite": None,
        "toys": [],
        "labels": {},
        "shelf": {},
        "big": 0,
        "exit_code": None,
        "key_seen": "",
    }


def test_a_full_message() -> None:
    animal = zoo.message("Animal")(
        animal_id="a1",
        kind=2,
        price_usd=1_250_000,
        cost_usd=1,
        weight_kg=0.5,
        note="n",
        token="secret",
        toys=[{"toy_id": "t", "count": 3}],
        labels={"a": "b"},
        big=2**62,
        exit_code=0,
        picture=b"\x00\xff",
        hints=["h"],
    )
    animal.born_at.FromJsonString("2026-06-02T12:00:00Z")
    animal.fed_at.FromJsonString("2026-06-02T12:00:00.1234567Z")
    animal.seen_at.FromJsonString("2026-06-02T12:00:00.9Z")
    animal.favourite.SetInParent()
    animal.shelf[7].toy_id = "s"
    animal.metadata.update({"n": 5, "f": 1.5, "l": [None, True, {"x": "y"}]})
    animal.draft.environment["SECRET"] = "s3cret"
    animal.draft.name = "n"
    found = shown(animal)
    assert found["kind"] == "big-dog"
    assert found["price_usd"] == 1.25
    assert found["cost_usd"] == found["actual_cost_usd"] == 0.000001
    assert found["born_at"] == "2026-06-02T12:00:00Z"
    assert found["fed_at"] == "2026-06-02T12:00:00.123456Z"
    assert found["seen_at"] == "2026-06-02T12:00:00Z"
    assert found["favourite"] == {"toy_id": "", "count": 0}
    assert found["toys"] == [{"toy_id": "t", "count": 3}]
    assert found["shelf"] == {"7": {"toy_id": "s", "count": 0}}
    assert found["big"] == 2**62
    assert found["exit_code"] == 0
    assert found["picture"] == "AP8="
    assert found["metadata"] == {"n": 5, "f": 1.5, "l": [None, True, {"x": "y"}]}
    assert b'"n":5.' not in dumps(Encoders().of(animal.DESCRIPTOR)(animal))
    assert "s3cret" not in str(found)
    assert "secret" not in str(found)
    assert "command_is_text" not in found["draft"]


def test_numeric_text_is_a_number_only_when_that_is_safe() -> None:
    page = zoo.message("ListAnimalsResponse")
    cases = {"42": 42, "0": 0, "007": "007", "abc": "abc", "": "", "9" * 17: "9" * 17}
    for text, wanted in cases.items():
        assert shown(page(next_cursor=text))["next_cursor"] == wanted
    assert shown(page(next_cursor=str(2**53)))["next_cursor"] == str(2**53)
    assert shown(page())["next_cursor"] is None


def test_an_enum_value_of_a_newer_service_is_shown_as_such() -> None:
    assert shown(zoo.message("Animal")(kind=9))["kind"] == "unknown_9"


FULL: dict[str, Any] = {
    "word": "w",
    "flag": True,
    "i32": -5,
    "i64": -(2**63),
    "u32": 2**32 - 1,
    "u64": 2**64 - 1,
    "s64": 2**63 - 1,
    "f32": 0.5,
    "f64": 1e300,
    "raw": "AP8=",
    "kind": "cat",
    "at": "2026-06-02T12:00:00.5Z",
    "lasts": "-1.5s",
    "any": [1, "x", None],
    "free": {"deep": {"er": [{}]}},
    "numbers": [1, 2, 3],
    "totals": {"a": 1},
    "sides": {"true": "l", "false": "r"},
    "shelf": {"-3": {"toy_id": "t", "count": 0}},
    "kinds": ["cat", "big-dog"],
    "from": "a keyword",
    "items": [1, [2]],
}


def decoded(name: str, data: Any) -> Any:
    message = zoo.message(name)()
    Decoders().of(message.DESCRIPTOR)(message, data, 1)
    return message


def test_everything_survives_both_ways() -> None:
    full = {**FULL, "inner": FULL}
    message = decoded("Everything", full)
    found = shown(message)
    assert {**found, "at": 0, "inner": 0} == {**full, "at": 0, "inner": 0}
    assert found["at"] == "2026-06-02T12:00:00.500000Z"
    again = decoded("Everything", found)
    assert again == message


def test_it_agrees_with_the_reference_implementation() -> None:
    data = {key: value for key, value in FULL.items() if key not in ("kind", "kinds")}
    reference = zoo.message("Everything")()
    json_format.ParseDict(data, reference)
    assert decoded("Everything", data) == reference


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"i32": "5"}, "i32: expected a whole number, got a string"),
        ({"i32": 2**31}, "i32: expected a whole number from -2147483648 to 2147483647"),
        ({"u32": -1}, "u32: expected a whole number from 0 to 4294967295"),
        ({"u64": 1e30}, "u64: expected a whole number, got a fraction or one out of range"),
        ({"f32": 1e39}, "f32: expected a number that fits this field, got one out of range"),
        ({"f64": "1"}, "f64: expected a number, got a string"),
        ({"f64": True}, "f64: expected a number, got true or false"),
        ({"raw": "***"}, "raw: expected a base64 string"),
        ({"kind": "CAT"}, "kind: expected one of cat, big-dog, dog; got 'CAT'"),
        ({"kind": 1}, "kind: expected a string, got a number"),
        ({"at": "2026-06-02"}, "at: expected a time with a zone, such as 2026-06-02T12:00:00Z"),
        ({"at": "2026-06-02T12:00:00"}, "at: expected a time with a zone"),
        ({"at": 5}, "at: expected a time such as"),
        ({"lasts": "5"}, "lasts: expected a duration such as 1.5s"),
        ({"numbers": "123"}, "numbers: expected a list, got a string"),
        ({"numbers": [1, [2]]}, "numbers[1]: expected a whole number, got a list"),
        ({"totals": {"a": "1"}}, "totals.a: expected a whole number, got a string"),
        ({"totals": []}, "totals: expected an object, got a list"),
        ({"sides": {"maybe": "x"}}, "sides.maybe: expected true or false"),
        ({"shelf": {"x": {}}}, "shelf.x: expected a whole number"),
        ({"inner": {"inner": {"flag": 1}}}, "inner.inner.flag: expected true or false, got a num"),
        ({"free": []}, "free: expected an object, got a list"),
        ({"items": {}}, "items: expected a list, got an object"),
    ],
)
def test_wrong_types_are_named_with_their_path(data: Any, message: str) -> None:
    with pytest.raises(FieldError) as caught:
        decoded("Everything", data)
    assert str(caught.value).startswith(message)


def test_numbers_that_json_writes_with_a_fraction() -> None:
    assert decoded("Everything", {"i32": 2.0, "i64": 1e3}).i64 == 1000


def test_other_names_and_forms() -> None:
    draft = decoded(
        "AnimalDraft",
        {
            "title": "by alias",
            "command": "run it",
            "env": {"A": "b"},
            "toys": ["t1", {"toy_id": "t2", "count": 2}],
            "favourite": "t3",
            "price_usd": 0.1,
            "kind": "dog",
        },
    )
    assert draft.name == "by alias"
    assert list(draft.command) == ["run it"]
    assert draft.command_is_text
    assert dict(draft.environment) == {"A": "b"}
    assert [toy.toy_id for toy in draft.toys] == ["t1", "t2"]
    assert draft.favourite.toy_id == "t3"
    assert draft.price_usd == 100_000
    assert draft.kind == 2


def test_a_single_value_for_a_list_of_messages() -> None:
    assert decoded("AnimalDraft", {"toys": "t"}).toys[0].toy_id == "t"
    assert decoded("AnimalDraft", {"toys": {"toy_id": "t"}}).toys[0].toy_id == "t"
    with pytest.raises(FieldError, match="toys: expected a string or an object, got a number"):
        decoded("AnimalDraft", {"toys": 5})


def test_a_list_stays_a_list() -> None:
    draft = decoded("AnimalDraft", {"command": ["python", "-c", "print(42)"]})
    assert list(draft.command) == ["python", "-c", "print(42)"]
    assert not draft.command_is_text


def test_the_fields_own_name_wins_over_an_alias() -> None:
    for data in ({"name": "own", "title": "other"}, {"title": "other", "name": "own"}):
        assert decoded("AnimalDraft", data).name == "own"
    assert decoded("AnimalDraft", {"name": None, "title": "other"}).name == "other"


def test_null_is_not_sent_and_internal_fields_cannot_be() -> None:
    draft = decoded("AnimalDraft", {"count": None, "command_is_text": True, "environment": None})
    assert not draft.HasField("count")
    assert not draft.command_is_text


def test_unknown_fields_are_counted() -> None:
    seen: list[tuple[str, int]] = []
    message = zoo.message("AnimalDraft")()
    fill = Decoders(lambda name, count: seen.append((name, count))).of(message.DESCRIPTOR)
    fill(message, {"a": 1, "b": {"c": 2}, "name": "x", "favourite": {"colour": 1}}, 1)
    assert sorted(seen) == [("gatewaytest.v1.AnimalDraft", 2), ("gatewaytest.v1.Toy", 1)]


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        (1.25, 1_250_000),
        (1, 1_000_000),
        (0.1, 100_000),
        (0.0000005, 0),
        (0.0000015, 2),
        (-2.5, -2_500_000),
        (9_000_000_000_000, 9_000_000_000_000_000_000),
    ],
)
def test_money_is_exact(value: float, micros: int) -> None:
    assert decoded("AnimalDraft", {"price_usd": value}).price_usd == micros


@pytest.mark.parametrize("value", [1e19, 10**13, "1", True, [1]])
def test_money_out_of_range_or_of_another_type(value: Any) -> None:
    with pytest.raises(FieldError, match="price_usd: expected"):
        decoded("AnimalDraft", {"price_usd": value})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"numbers": [1] * 10_001}, "numbers: has more than 10000 entries"),
        ({"kinds": ["cat"] * 10_001}, "kinds: has more than 10000 entries"),
        ({"totals": {str(key): 1 for key in range(10_001)}}, "totals: has more than 10000 entries"),
        ({"free": {str(key): 1 for key in range(5_001)}}, "free: has more than 5000 values in all"),
        ({"free": {"a": [[1] * 2_600] * 2}}, "free.a[1]: has more than 5000 values in all"),
        ({"items": [1] * 5_001}, "items: has more than 5000 values in all"),
    ],
)
def test_large_values_cannot_hold_up_others(data: Any, message: str) -> None:
    with pytest.raises(FieldError) as caught:
        decoded("Everything", data)
    assert str(caught.value) == message
