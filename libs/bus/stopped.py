"""Keys whose facts the bus refuses: only they wait, and in order."""

from __future__ import annotations

from collections.abc import Sequence

from libs.db import OutboxEvent

_HELD_PER_KEY_MAX = 1_000
_PAUSE_SECONDS = (1.0, 30.0)


class StoppedKeys:
    """What is held back, by topic and key."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], list[OutboxEvent]] = {}
        self._dropped = False
        self.due = False
        self.pause_seconds = _PAUSE_SECONDS[0]

    def __len__(self) -> int:
        return len(self._held)

    def add(self, events: Sequence[OutboxEvent]) -> None:
        """Stops the keys of refused `events`."""
        for event in events:
            self._held.setdefault((event.topic, event.key), []).append(event)

    def hold_back(self, event: OutboxEvent) -> bool:
        """True when `event` has to wait behind an older fact of its key; it is kept then."""
        held = self._held.get((event.topic, event.key))
        if held is None:
            return False
        if len(held) < _HELD_PER_KEY_MAX:
            if all(event.event_id != other.event_id for other in held):
                held.append(event)
        else:
            # It stays in the table, and the table is read before the key goes on.
            self._dropped = True
        return True

    def take(self) -> tuple[list[OutboxEvent], bool]:
        """Everything held, for another try, and whether the table holds more of these keys."""
        events = [event for held in self._held.values() for event in held]
        dropped, self._dropped = self._dropped, False
        self._held.clear()
        self.due = False
        self.pause_seconds = min(self.pause_seconds * 2, _PAUSE_SECONDS[1])
        return events, dropped

    def recovered(self) -> None:
        """All keys go again: the next trouble starts with a short pause."""
        self.pause_seconds = _PAUSE_SECONDS[0]
