"""A group of subscribers in memory: what has been handed to whom, and what is done with.

A group is *live* when it has been handed all records up to the end of the log; then it gets new
ones straight from the publisher. Otherwise it is behind (it has just joined, or holds as many
records as it may), and a task reads its records from the log until it is live again.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from libs.bus.port import Record, SubscriptionClosed

# Handed out and not committed; beyond this the log is the buffer.
OUTSTANDING_MAX = 8_192


class Member:
    """One subscription. Only its group and its owner touch it."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False
        self.queue: deque[Record] = deque()
        self.in_flight: dict[int, Record] = {}

    async def fetch(self, limit: int = 256) -> list[Record]:
        while True:
            if self.closed:
                raise SubscriptionClosed(self._group.name)
            if self.queue and not self._group.paused:
                break
            await self._wait()
        taken = [self.queue.popleft() for _ in range(min(limit, len(self.queue)))]
        self.in_flight.update((record.offset, record) for record in taken)
        return taken

    async def commit(self, records: Sequence[Record]) -> None:
        mine = [r for r in records if self.in_flight.pop(r.offset, None) is not None]
        self._group.done(mine)

    async def close(self) -> None:
        if not self.closed:
            self.end()
            self._group.leave(self)

    def end(self) -> None:
        """No more fetches."""
        self.closed = True
        self.wake()

    def wake(self) -> None:
        """Makes a waiting fetch look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("a subscription has one fetch at a time")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Group:
    """All subscriptions of one name."""

    def __init__(
        self,
        name: str,
        topics: Sequence[str],
        places: Mapping[str, int],
        moved: Callable[[Group], None],
    ) -> None:
        """`places` are the committed offsets by topic, 0 where there is none; `moved` is called
        after every commit of a member."""
        self.name = name
        self.topics = frozenset(topics)
        self.paused = False
        # Everything up to here has been handed out, or was of no interest.
        self.position = min(places.values())
        self._places = dict(places)
        self._moved = moved
        self._members: list[Member] = []
        self._outstanding: dict[str, dict[int, None]] = {topic: {} for topic in topics}
        self._count = 0

    def join(self) -> Member:
        member = Member(self)
        self._members.append(member)
        self._share_out()
        return member

    def leave(self, member: Member) -> None:
        self._members.remove(member)
        self._share_out([*member.queue, *member.in_flight.values()])

    def room(self) -> int:
        """How many more records may be handed out; none while nobody is there to take them."""
        return OUTSTANDING_MAX - self._count if self._members else 0

    def hand_out(self, records: Iterable[Record], position: int) -> None:
        """Gives `records` to the members of their keys. All up to `position` is known now."""
        for record in records:
            # After a restart the topics of a group may be at different places.
            if record.topic in self.topics and record.offset > self._places[record.topic]:
                self._outstanding[record.topic][record.offset] = None
                self._count += 1
                self._owner(record.key).queue.append(record)
        self.position = position
        self.wake()

    def wake(self) -> None:
        """Makes every waiting fetch look again."""
        for member in self._members:
            member.wake()

    def end(self) -> None:
        """No more fetches by anyone."""
        for member in self._members:
            member.end()

    def done(self, records: Sequence[Record]) -> None:
        """A member is done with `records`."""
        for record in records:
            if record.offset in self._outstanding[record.topic]:
                del self._outstanding[record.topic][record.offset]
                self._count -= 1
        if records:
            self._moved(self)

    def places(self) -> dict[str, int]:
        """By topic, the offset up to which nothing is outstanding."""
        return {
            topic: next(iter(offsets)) - 1 if offsets else max(self.position, self._places[topic])
            for topic, offsets in self._outstanding.items()
        }

    def _owner(self, key: str) -> Member:
        if len(self._members) == 1:
            return self._members[0]
        return self._members[zlib.crc32(key.encode()) % len(self._members)]

    def _share_out(self, left: Sequence[Record] = ()) -> None:
        """Deals the outstanding records again, after a member came or went. What another member has
        in flight under a key that has moved is delivered again, so that the key's new owner sees
        it from where it was committed."""
        if not self._members:
            self._forget()
            return
        records = list(left)
        for member in self._members:
            records += [*member.queue, *member.in_flight.values()]
            member.queue.clear()
        for record in sorted(records, key=lambda record: record.offset):
            owner = self._owner(record.key)
            if record.offset in owner.in_flight:
                continue
            for member in self._members:
                member.in_flight.pop(record.offset, None)
            owner.queue.append(record)
        self.wake()

    def _forget(self) -> None:
        # Nobody is left: the next member starts from what was committed.
        self._places = self.places()
        self.position = min(self._places.values())
        self._outstanding = {topic: {} for topic in self.topics}
        self._count = 0
