"""JSON values to Python values of one proto type, strictly: nothing is guessed or converted.

Every reader takes a parsed JSON value and returns what protobuf stores, or raises FieldError.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Fd

Reader = Callable[[Any], Any]

MICROS = 1_000_000
SAFE_INTEGER_MAX = 2**53 - 1
# In one list or object. More is no request that this API knows, and would hold up all others.
ENTRIES_MAX = 10_000
_SHOWN_MAX = 40
_EXACT = 2.0**50
_NEAR = 1e-3
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s")
_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


class FieldError(Exception):
    """A value does not fit its field. `path` is filled from the inside out by its readers."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.path: list[str | int] = []

    def under(self, *steps: str | int) -> FieldError:
        """The same error seen from one level further out."""
        self.path[:0] = steps
        return self

    def where(self) -> str:
        """As in `input_files[0].input_id`; empty for the whole body."""
        out = ""
        for step in self.path:
            out += f"[{step}]" if isinstance(step, int) else f".{step}" if out else step
        return out

    def __str__(self) -> str:
        return f"{self.where() or 'the request body'}: {self.text}"


def wrong(wanted: str, value: Any) -> FieldError:
    """The error for a JSON value of another type. The value is not shown: it may be secret."""
    return FieldError(f"expected {wanted}, got {_KINDS.get(type(value), 'something else')}")


def check_size(value: list[Any] | dict[str, Any]) -> None:
    """Raises FieldError for a list or object with too many entries."""
    if len(value) > ENTRIES_MAX:
        raise FieldError(f"has more than {ENTRIES_MAX} entries")


def read_string(value: Any) -> str:
    if type(value) is not str:
        raise wrong("a string", value)
    return value


def read_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise wrong("true or false", value)
    return value


def integer_reader(low: int, high: int) -> Reader:
    def read(value: Any) -> int:
        if type(value) is float and value.is_integer() and abs(value) <= SAFE_INTEGER_MAX:
            value = int(value)  # JSON has one number type, so 2.0 is a whole number
        if type(value) is not int:
            if type(value) is float:
                raise FieldError("expected a whole number, got a fraction or one out of range")
            raise wrong("a whole number", value)
        if not low <= value <= high:
            raise FieldError(f"expected a whole number from {low} to {high}")
        return value

    return read


def float_reader(high: float) -> Reader:
    def read(value: Any) -> float:
        if type(value) is not float and type(value) is not int:
            raise wrong("a number", value)
        if not -high <= value <= high:
            raise FieldError("expected a number that fits this field, got one out of range")
        return float(value)

    return read


def read_micros(value: Any) -> int:
    """A decimal number as millionths, rounded half to even below that."""
    if type(value) is not float and type(value) is not int:
        raise wrong("a number", value)
    scaled = value * 1e6
    if -_EXACT < scaled < _EXACT and abs(scaled - round(scaled)) < _NEAR:
        return round(scaled)  # six decimals or fewer, as all usual amounts: no Decimal needed
    if not math.isfinite(scaled):
        raise FieldError("expected a smaller amount")
    micros = int((Decimal(repr(value)) * MICROS).to_integral_value(ROUND_HALF_EVEN))
    if not -(2**63) <= micros < 2**63:
        raise FieldError("expected a smaller amount")
    return micros


def read_numeric_text(value: Any) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise wrong("a number or a string", value)
    return value


def read_bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise wrong("a base64 string", value)
    text = value.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise FieldError("expected a base64 string") from None


def enum_reader(words: Mapping[str, int]) -> Reader:
    def read(value: Any) -> int:
        if type(value) is not str:
            raise wrong("a string", value)
        number = words.get(value)
        if number is None:
            raise FieldError(f"expected one of {', '.join(words)}; got '{shown(value)}'")
        return number

    return read


def read_time(value: Any) -> tuple[int, int]:
    """An RFC 3339 time with a zone as (seconds, nanos)."""
    if type(value) is not str:
        raise wrong("a time such as 2026-06-02T12:00:00Z", value)
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or "T" not in value.upper()[:11]:
        raise FieldError("expected a time with a zone, such as 2026-06-02T12:00:00Z")
    try:
        seconds = math.floor(found.timestamp())
    except (OverflowError, ValueError):
        raise FieldError("expected a time between the years 1 and 9999") from None
    return seconds, found.microsecond * 1000


def read_duration(value: Any) -> tuple[int, int]:
    """`1.5s` as (seconds, nanos)."""
    if type(value) is not str:
        raise wrong("a duration such as 1.5s", value)
    match = _DURATION.fullmatch(value)
    if match is None:
        raise FieldError("expected a duration such as 1.5s")
    sign = -1 if match[1] else 1
    return sign * int(match[2]), sign * int((match[3] or "").ljust(9, "0"))


def shown(text: str) -> str:
    """`text` short enough for an error message."""
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


_INTEGERS = {
    Fd.TYPE_INT32: (-(2**31), 2**31 - 1),
    Fd.TYPE_SINT32: (-(2**31), 2**31 - 1),
    Fd.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    Fd.TYPE_UINT32: (0, 2**32 - 1),
    Fd.TYPE_FIXED32: (0, 2**32 - 1),
    Fd.TYPE_INT64: (-(2**63), 2**63 - 1),
    Fd.TYPE_SINT64: (-(2**63), 2**63 - 1),
    Fd.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    Fd.TYPE_UINT64: (0, 2**64 - 1),
    Fd.TYPE_FIXED64: (0, 2**64 - 1),
}

SCALARS: Mapping[int, Reader] = {
    **{kind: integer_reader(*limits) for kind, limits in _INTEGERS.items()},
    Fd.TYPE_STRING: read_string,
    Fd.TYPE_BOOL: read_bool,
    Fd.TYPE_BYTES: read_bytes,
    Fd.TYPE_DOUBLE: float_reader(1.7976931348623157e308),
    Fd.TYPE_FLOAT: float_reader(3.4028234663852886e38),
}
