"""The Range header, for one range; several are answered with the whole, as RFC 9110 allows."""

from __future__ import annotations

import re

from libs.errors import InvalidRequest

_RANGE = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})")


class RangeNotSatisfiable(InvalidRequest):
    """A range that begins behind the end."""

    reason = "RANGE_NOT_SATISFIABLE"

    def __init__(self, size: int) -> None:
        super().__init__(f"the object has {size} bytes; ask for a range inside it")
        self.size = size


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """First and last byte; None when the header asks for nothing we do, so the whole is sent."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        count = int(last)
        if count == 0 or size == 0:
            raise RangeNotSatisfiable(size)
        return max(0, size - count), size - 1
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise RangeNotSatisfiable(size)
    return int(first), min(int(last), size - 1) if last else size - 1
