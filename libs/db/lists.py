"""IN with a list: a statement whose text depends on how many values there are.

A text per length would fill the driver's cache of statements. So a list is filled up to the next
power of two with its last value, which changes nothing for IN and NOT IN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.sql.compiler import SQLCompiler

# SQLite takes 32,766 values.
_LONGEST = 1024


class Unfit(Exception):
    """SQLAlchemy's path is for this one: an empty list, a very long one, or no list."""


class Lists:
    """The text of one statement by the lengths of its lists."""

    def __init__(self, text: str, places: dict[int, str]) -> None:
        """`places` says which of the positional parameters are lists, and their marks in `text`."""
        self._text = text
        self._places = places
        self._texts: dict[tuple[int, ...], str] = {}

    @classmethod
    def of(cls, compiled: SQLCompiler) -> Lists | None:
        """None when there are no lists, or they need more than a mark for each value."""
        places: dict[int, str] = {}
        for place, name in enumerate(compiled.positiontup or ()):
            bound = compiled.binds[name]
            if bound.expanding:
                mark = f"__[POSTCOMPILE_{name}]"
                if compiled.string.count(mark) != 1 or bound.type._is_tuple_type:
                    return None
                places[place] = mark
        return cls(compiled.string, places) if places else None

    def flat(self, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        """The SQL for these `values`, and the values one by one. Raises Unfit."""
        flat: list[Any] = []
        lengths: list[int] = []
        for place, value in enumerate(values):
            if place in self._places:
                length = _filled(len(value))
                flat += value
                flat += value[-1:] * (length - len(value))
                lengths.append(length)
            else:
                flat.append(value)
        key = tuple(lengths)
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self._render(lengths)
        return text, tuple(flat)

    def _render(self, lengths: Sequence[int]) -> str:
        text = self._text
        for mark, length in zip(self._places.values(), lengths, strict=True):
            text = text.replace(mark, ", ".join("?" * length))
        return text


def each(process: Callable[[Any], Any] | None) -> Callable[[Any], list[Any]]:
    """Applies `process` to the values of a list."""

    def bind(values: Any) -> list[Any]:
        if not isinstance(values, list | tuple):
            raise Unfit
        return list(values) if process is None else [process(value) for value in values]

    return bind


def _filled(count: int) -> int:
    if not 0 < count <= _LONGEST:
        raise Unfit
    return 1 << (count - 1).bit_length()
