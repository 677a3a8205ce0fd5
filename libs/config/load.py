"""A section of settings into a frozen dataclass, with every mistake named by its path."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from libs.config.environment import Override

T = TypeVar("T")

_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}


class ConfigError(Exception):
    """A setting is wrong; the message names it and says what is wanted."""


def section(source: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The table at `path` ("a.b"); empty when it is not there."""
    place: Any = source
    for part in path.split("."):
        place = place.get(part, {})
        if not isinstance(place, Mapping):
            raise ConfigError(f"[{path}] must be a table of settings")
    found: Mapping[str, Any] = place
    return found


def load(path: str, cls: type[T], source: Mapping[str, Any]) -> T:
    """Fills dataclass `cls` from section `path`; what is missing takes the field's default.

    Raises ConfigError for unknown keys, wrong types and missing settings without a default.
    """
    return _dataclass(path, cls, section(source, path))


def _dataclass(path: str, cls: type[T], values: Mapping[str, Any]) -> T:
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        known = ", ".join(sorted(fields)) or "none"
        raise ConfigError(f"[{path}] does not know '{unknown[0]}'; its settings are: {known}")
    found: dict[str, Any] = {}
    for name, field in fields.items():
        if name in values:
            found[name] = _value(f"{path}.{name}", hints[name], values[name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"[{path}] needs '{name}'")
    try:
        return cls(**found)
    except ValueError as error:  # a dataclass may check itself in __post_init__
        raise ConfigError(f"[{path}] {error}") from None


def _value(path: str, wanted: Any, value: Any) -> Any:
    origin = get_origin(wanted)
    if origin in (Union, types.UnionType):
        return _optional(path, wanted, value)
    if origin is Literal:
        return _one_of(path, get_args(wanted), value)
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return wanted(_one_of(path, tuple(member.value for member in wanted), value))
    if origin in (tuple, list, frozenset, Sequence):
        return _items(path, wanted, value)
    if origin in (dict, Mapping):
        return _table(path, wanted, value)
    if dataclasses.is_dataclass(wanted):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a table of settings")
        return _dataclass(path, wanted, value)  # type: ignore[arg-type]
    return _scalar(path, wanted, value)


def _optional(path: str, wanted: Any, value: Any) -> Any:
    members = [member for member in get_args(wanted) if member is not type(None)]
    if len(members) != 1:
        raise TypeError(f"{path}: a setting is one type, or one type and None")
    return None if value is None or value == "" else _value(path, members[0], value)


def _one_of(path: str, allowed: Sequence[Any], value: Any) -> Any:
    for choice in allowed:
        if choice == value or (isinstance(value, str) and str(choice) == value):
            return choice
    raise ConfigError(f"{path} must be one of {', '.join(map(str, allowed))}; it is '{value}'")


def _items(path: str, wanted: Any, value: Any) -> Any:
    inner = get_args(wanted)[0]
    if isinstance(value, Override):  # text from the environment: a,b,c
        value = [Override(part.strip()) for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path} must be a list")
    found = [_value(f"{path}[{index}]", inner, item) for index, item in enumerate(value)]
    origin = get_origin(wanted)
    return tuple(found) if origin in (tuple, Sequence) else origin(found)


def _table(path: str, wanted: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} must be a table")
    inner = get_args(wanted)[1]
    return {str(key): _value(f"{path}.{key}", inner, item) for key, item in value.items()}


def _scalar(path: str, wanted: Any, value: Any) -> Any:
    if isinstance(value, Override):
        return _from_text(path, wanted, value)
    if wanted is Any:
        return value
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"{path} must be {_word(wanted)}; it is {value!r}")
    return value


def _from_text(path: str, wanted: Any, text: str) -> Any:
    if wanted is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ConfigError(f"{path} must be true or false; it is '{text}'")
    try:
        return str(text) if wanted in (str, Any) else wanted(text)
    except ValueError:
        raise ConfigError(f"{path} must be {_word(wanted)}; it is '{text}'") from None


def _word(wanted: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return words.get(wanted, getattr(wanted, "__name__", str(wanted)))
