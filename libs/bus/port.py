"""The port: records, groups and offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """One fact on its way. `topic` is the full name of its message, `key` decides its order, and
    `offset` is its place in the log, -1 until the bus has given it one."""

    topic: str
    key: str
    event_id: str
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    offset: int = -1


class SubscriptionClosed(Exception):
    """`fetch` on a subscription, or a bus, that has been closed."""


class PartialPublish(Exception):
    """Some records of a `publish` were refused, and with each all later ones of its key; the others
    are on the bus."""

    def __init__(self, failed: Mapping[str, BaseException]) -> None:
        """`failed` is cause by event id."""
        super().__init__(f"{len(failed)} records were refused: {sorted(failed)[:3]}")
        self.failed = failed


class Subscription(Protocol):
    """One member of a group."""

    async def fetch(self, limit: int = 256) -> list[Record]:
        """At least one record and at most `limit`, in order per key. Waits without polling; raises
        SubscriptionClosed once closed. A cancelled fetch loses nothing."""

    async def commit(self, records: Sequence[Record]) -> None:
        """Notes that `records` are done with. Those not noted when the process dies come again, and
        so may the last few that were noted: the inbox drops them."""

    async def close(self) -> None:
        """Leaves the group; what was fetched and not committed goes to another member or comes
        again."""


class Bus(Protocol):
    """Topics of records, kept for some days. Every group sees every record at least once; within
    one key in the order of publishing; the members of a group share its keys among them."""

    async def start(self) -> None:
        """Opens the bus."""

    async def stop(self) -> None:
        """Finishes what was accepted; waiting fetches raise SubscriptionClosed."""

    def identity(self) -> str:
        """Names this bus for as long as it keeps its records. Another name than last time means
        that its records are gone, and that whoever published must publish again."""

    async def publish(self, records: Sequence[Record]) -> None:
        """Appends `records` in order. Raises PartialPublish when only some were refused; after any
        other error, all may have been."""

    async def sync(self) -> None:
        """Returns when everything published so far survives a power cut."""

    def subscribe(self, group: str, topics: Sequence[str]) -> Subscription:
        """Joins `group`. One that has never committed on a topic begins at its oldest record."""
