"""Reading again and trying again after a guarded update that touched no row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from libs.errors import Conflict, StaleWrite

T = TypeVar("T")


async def retry_stale(work: Callable[[], Awaitable[T]], attempts: int = 5) -> T:
    """Awaits `work()` until it raises no StaleWrite, at most `attempts` times.

    There is no pause: every StaleWrite means that another writer got through, so the group of
    writers always advances. Then raises Conflict, which a caller may answer by trying again.
    """
    for _ in range(attempts):
        try:
            return await work()
        except StaleWrite as error:
            last = error
    raise Conflict("the resource kept changing while it was being changed; try again") from last
