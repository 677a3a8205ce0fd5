"""Keeps secrets out of every log line, by the name of the key and by the look of the value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
_KEYS = re.compile(
    r"secret|token|passw|authorization|api_?key|credential|private_?key|signature|cookie"
    r"|environ|^env$|signed_?url",
    re.IGNORECASE,
)
# A URL that carries its own permission, a bearer header, or one of our key formats in free text.
_VALUES = re.compile(
    r"([?&](?:signature|sig|x-amz-signature|x-amz-credential|token|key)=)[^&\s\"']+"
    r"|(\bbearer\s+)[\w.~+/=-]+"
    r"|\bjgn?_(?:[0-9A-Za-z]{20,})",
    re.IGNORECASE,
)
_DEPTH = 6


def redact(_: Any, __: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """A structlog processor: the event without anything that looks secret."""
    return {key: _pair(key, value, _DEPTH) for key, value in event.items()}


def clean_text(text: str) -> str:
    """`text` with signatures, bearer tokens and keys blanked."""
    return _VALUES.sub(lambda match: (match[1] or match[2] or "") + REDACTED, text)


def _pair(key: str, value: Any, depth: int) -> Any:
    if _KEYS.search(key):
        return REDACTED
    return _value(value, depth)


def _value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if depth == 0 or value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _pair(str(key), item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(item, depth - 1) for item in value]
    return value
