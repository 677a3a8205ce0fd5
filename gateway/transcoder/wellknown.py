"""google.protobuf types whose JSON is not an object of their fields, both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from google.protobuf import struct_pb2

from gateway.transcoder.values import (
    SAFE_INTEGER_MAX,
    FieldError,
    read_bool,
    read_duration,
    read_string,
    read_time,
    wrong,
)

_DEPTH_MAX = 64
_VALUES_MAX = 5_000
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - orjson writes naive times as UTC, and faster


def _timestamp(message: Any, value: Any, depth: int) -> None:
    message.seconds, message.nanos = read_time(value)


def _duration(message: Any, value: Any, depth: int) -> None:
    message.seconds, message.nanos = read_duration(value)


class _Budget:
    """Counts the values of one piece of free JSON, at every depth: each costs microseconds."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _VALUES_MAX

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise FieldError(f"has more than {_VALUES_MAX} values in all")


def _fill_struct(message: Any, value: Any, depth: int) -> None:
    _struct(message, value, depth, _Budget())


def _fill_list(message: Any, value: Any, depth: int) -> None:
    _list(message, value, depth, _Budget())


def _fill_value(message: Any, value: Any, depth: int) -> None:
    _value(message, value, depth, _Budget())


def _struct(message: Any, value: Any, depth: int, budget: _Budget) -> None:
    if type(value) is not dict:
        raise wrong("an object", value)
    budget.take(len(value))
    fields = message.fields
    for key, item in value.items():
        try:
            _value(fields[key], item, depth + 1, budget)
        except FieldError as error:
            raise error.under(key) from None


def _list(message: Any, value: Any, depth: int, budget: _Budget) -> None:
    if type(value) is not list:
        raise wrong("a list", value)
    budget.take(len(value))
    add = message.values.add
    for index, item in enumerate(value):
        try:
            _value(add(), item, depth + 1, budget)
        except FieldError as error:
            raise error.under(index) from None


def _value(message: Any, value: Any, depth: int, budget: _Budget) -> None:
    if depth > _DEPTH_MAX:
        raise FieldError(f"nested more than {_DEPTH_MAX} levels deep")
    kind = type(value)
    if kind is str:
        message.string_value = value
    elif kind is bool:
        message.bool_value = value
    elif kind is int or kind is float:
        message.number_value = value
    elif value is None:
        message.null_value = struct_pb2.NULL_VALUE
    elif kind is dict:
        message.struct_value.SetInParent()
        _struct(message.struct_value, value, depth, budget)
    else:
        message.list_value.SetInParent()
        _list(message.list_value, value, depth, budget)


def _empty(message: Any, value: Any, depth: int) -> None:
    if type(value) is not dict:
        raise wrong("an object", value)


def _wrapped(read: Callable[[Any], Any]) -> Callable[[Any, Any, int], None]:
    def fill(message: Any, value: Any, depth: int) -> None:
        message.value = read(value)

    return fill


READERS: Mapping[str, Callable[[Any, Any, int], None]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _fill_struct,
    "google.protobuf.ListValue": _fill_list,
    "google.protobuf.Value": _fill_value,
    "google.protobuf.Empty": _empty,
    "google.protobuf.StringValue": _wrapped(read_string),
    "google.protobuf.BoolValue": _wrapped(read_bool),
}


def show_time(message: Any) -> datetime | str:
    """Microseconds, or whole seconds when they are zero: what orjson does with a datetime."""
    try:
        return _EPOCH + timedelta(0, message.seconds, message.nanos // 1000)
    except OverflowError:
        return f"{message.seconds}s"


def show_whole_seconds(message: Any) -> datetime | str:
    """The same, cut to whole seconds."""
    try:
        return _EPOCH + timedelta(0, message.seconds)
    except OverflowError:
        return f"{message.seconds}s"


def show_duration(message: Any) -> str:
    """`1.5s`"""
    sign = "-" if message.seconds < 0 or message.nanos < 0 else ""
    fraction = f".{abs(message.nanos):09d}".rstrip("0") if message.nanos else ""
    return f"{sign}{abs(message.seconds)}{fraction}s"


def show_struct(message: Any) -> dict[str, Any]:
    """A Struct as a JSON object; whole numbers without a fraction."""
    return {key: show_value(value) for key, value in message.fields.items()}


def show_list(message: Any) -> list[Any]:
    """A ListValue as a JSON list."""
    return [show_value(value) for value in message.values]


def show_value(message: Any) -> Any:
    """A Value as JSON."""
    kind = message.WhichOneof("kind")
    if kind == "string_value":
        return message.string_value
    if kind == "number_value":
        number = message.number_value
        whole = number.is_integer() and abs(number) <= SAFE_INTEGER_MAX
        return int(number) if whole else number
    if kind == "bool_value":
        return message.bool_value
    if kind == "struct_value":
        return show_struct(message.struct_value)
    if kind == "list_value":
        return show_list(message.list_value)
    return None


def _show_wrapped(message: Any) -> Any:
    return message.value


SHOWERS: Mapping[str, Callable[[Any], Any]] = {
    "google.protobuf.Timestamp": show_time,
    "google.protobuf.Duration": show_duration,
    "google.protobuf.Struct": show_struct,
    "google.protobuf.ListValue": show_list,
    "google.protobuf.Value": show_value,
    "google.protobuf.Empty": lambda message: {},
    "google.protobuf.StringValue": _show_wrapped,
    "google.protobuf.BoolValue": _show_wrapped,
}
