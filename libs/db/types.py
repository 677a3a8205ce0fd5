"""Column types that read and write the same on every dialect."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import BigInteger, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(time: datetime) -> int:
    """Microseconds since 1970. A naive time is refused: it has no meaning outside its machine."""
    if time.tzinfo is None:
        raise ValueError("a stored time must be aware (use clock.now())")
    return (time - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC time that `to_micros` came from."""
    return _EPOCH + timedelta(0, 0, micros)


def _bind_time(value: datetime | None) -> int | None:
    return None if value is None else to_micros(value)


def _read_time(value: int | None) -> datetime | None:
    return None if value is None else from_micros(value)


def _bind_json(value: Any | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _read_json(value: str | None) -> Any | None:
    return None if value is None else orjson.loads(value)


# Both types also name their processors, since a TypeDecorator's own ones call through two more
# functions for each value; the dialects' integer and text need none beneath.
class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as BIGINT microseconds since 1970.

    An integer sorts, indexes and compares alike on SQLite and Postgres, and cannot lose its zone.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return _bind_time(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return _read_time(value)

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], int | None]:
        return _bind_time

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[Any | None], datetime | None]:
        return _read_time


class JsonText(TypeDecorator[Any]):
    """JSON kept as text, for values that are stored and returned whole and never queried into."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any | None, dialect: Dialect) -> str | None:
        return _bind_json(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any | None:
        return _read_json(value)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any | None], str | None]:
        return _bind_json

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[Any | None], Any | None]:
        return _read_json
