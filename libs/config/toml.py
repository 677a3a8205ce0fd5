"""Reading the configuration file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from libs.config.environment import Override
from libs.config.load import ConfigError

_VARIABLE = re.compile(r"\{([a-z][a-z_]*)\}")


def read_toml(path: Path | str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Reads `path`, with `variables` put in for `{home}`, `{port}` and so on, at any depth.

    A name in braces that is not given stays as it is: `{service}` is filled in later, per service.
    Raises ConfigError when the file is missing or is not TOML.
    """
    try:
        with Path(path).open("rb") as file:
            raw = tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration file {path} is not valid TOML: {error}") from None
    return {key: _filled(value, variables) for key, value in raw.items()}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        alone = _VARIABLE.fullmatch(value)
        if alone is not None and alone[1] in variables:
            return Override(variables[alone[1]])  # port = "{port}" is a number where one is wanted
        return _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), value)
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    return value
