"""What a service hands to the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


class Part(Protocol):
    """Something with a life: a database, a server, a consumer, a loop."""

    async def start(self) -> None:
        """Returns when the part is ready for the parts that start after it."""

    async def stop(self) -> None:
        """Ends all work begun by `start`; harmless when called twice or without `start`."""


@runtime_checkable
class Watched(Protocol):
    """A part that can die by itself. The process stops when `watch` returns or raises."""

    async def watch(self) -> None:
        """Returns or raises once the part works no more."""


# The generated `add_XServicer_to_server` and the instance to give it.
Servicer = tuple[Callable[[Any, Any], None], Any]


@dataclass(frozen=True, slots=True)
class Module:
    """One service, built: its parts in starting order, and its servicers by listener.

    `internal` servicers are called by the gateway and the other services, `node` servicers by
    daemons. `routes` are extra HTTP handlers (method, path, handler), for the gateway alone.
    `node_verify` turns the bearer text of a daemon into a principal; it is needed only where the
    signed session token is not enough, and raises GridError to refuse.
    """

    name: str
    parts: Sequence[Part] = ()
    internal: Sequence[Servicer] = ()
    node: Sequence[Servicer] = ()
    routes: Sequence[tuple[str, str, Any]] = ()
    node_verify: Callable[[str], Awaitable[Any]] | None = None
