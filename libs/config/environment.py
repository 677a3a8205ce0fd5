"""The few environment variables there are: GRID_HOME, GRID_PORT, GRID_CONFIG, GRID_FAILPOINT,
and one override per setting, `GRID_<SECTION>__<KEY>`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "GRID_"
SEPARATOR = "__"


class Override(str):
    """A value that came from the environment: text, to be read as the field's own type."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables that are not overrides; an empty one counts as unset."""

    home: str | None
    port: str | None
    config: str | None
    failpoint: str | None

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Environment:
        """Takes them from `environ`, by default the process's own."""
        found = os.environ if environ is None else environ
        return cls(
            home=found.get("GRID_HOME") or None,
            port=found.get("GRID_PORT") or None,
            config=found.get("GRID_CONFIG") or None,
            failpoint=found.get("GRID_FAILPOINT") or None,
        )


def overlay(source: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A copy of `source` under `GRID_<SECTION>__<KEY>`; deeper sections join with `__`."""
    result = _copy(source)
    for name, value in (os.environ if environ is None else environ).items():
        if not name.startswith(PREFIX) or SEPARATOR not in name:
            continue
        *sections, key = name[len(PREFIX) :].lower().split(SEPARATOR)
        place = result
        for part in sections:
            place = place.setdefault(part, {})
        place[key] = Override(value)
    return result


def _copy(source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copy(value) if isinstance(value, Mapping) else value for key, value in source.items()
    }
