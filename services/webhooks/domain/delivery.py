"""One delivery: the end of one job, told to one address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from services.webhooks.errors import IllegalMove


class DeliveryStatus(StrEnum):
    """How far it came; the proto enum DeliveryStatus."""

    PENDING = "pending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"
    BLOCKED = "blocked"

    @property
    def final(self) -> bool:
        """No further try will be made."""
        return self is not DeliveryStatus.PENDING


MOVES: Mapping[DeliveryStatus, frozenset[DeliveryStatus]] = {
    DeliveryStatus.PENDING: frozenset(DeliveryStatus),
    DeliveryStatus.DELIVERED: frozenset(),
    DeliveryStatus.EXHAUSTED: frozenset(),
    DeliveryStatus.BLOCKED: frozenset(),
}
# Answers besides 5xx that may be another one later.
_LATER = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class Delivery:
    """`body` and `url` are asked for once, at the first try, and kept: every try sends the same
    bytes. `token` is sealed. `due` is the next try, None once final."""

    workspace_id: str
    delivery_id: str
    job_id: str
    job_status: str
    created_time: datetime
    due: datetime | None
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempts: int = 0
    url: str = ""
    body: bytes | None = field(default=None, repr=False)
    token: bytes | None = field(default=None, repr=False)
    last_status: int = 0
    last_error: str = ""
    finished_time: datetime | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one try. `status` 0: there was no answer, and `error` says why.
    `retry_after_seconds` is what the receiver asked for."""

    status: int = 0
    error: str = ""
    retry_after_seconds: float = 0.0

    @property
    def taken(self) -> bool:
        """The receiver has it."""
        return 200 <= self.status < 300

    @property
    def retriable(self) -> bool:
        """Another try may do better. A redirect will not: redirects are not followed."""
        return self.status == 0 or self.status >= 500 or self.status in _LATER


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between tries: drawn evenly between 0 and a bound that doubles."""

    attempts_max: int
    seconds: float
    seconds_max: float

    def pause(self, attempts: int, draw: float) -> float:
        """Seconds after the try number `attempts`; `draw` is from 0 to 1."""
        return draw * min(self.seconds_max, self.seconds * 2.0 ** (attempts - 1))


def claim(delivery: Delivery, until: datetime) -> Delivery:
    """A try begins. Should its process die, the next one is due at `until`."""
    _pending(delivery)
    return replace(delivery, attempts=delivery.attempts + 1, due=until)


def settle(
    delivery: Delivery, answer: Answer, now: datetime, backoff: Backoff, draw: float
) -> Delivery:
    """After a try: delivered, given up, or due again."""
    _pending(delivery)
    told = replace(
        delivery, last_status=answer.status, last_error="" if answer.taken else answer.error
    )
    if answer.taken:
        return _end(told, DeliveryStatus.DELIVERED, now)
    if not answer.retriable or delivery.attempts >= backoff.attempts_max:
        return _end(told, DeliveryStatus.EXHAUSTED, now)
    asked = min(answer.retry_after_seconds, backoff.seconds_max)
    pause = max(backoff.pause(delivery.attempts, draw), asked)
    return replace(told, due=now + timedelta(seconds=pause))


def block(delivery: Delivery, why: str, now: datetime) -> Delivery:
    """Policy forbids it."""
    _pending(delivery)
    return _end(replace(delivery, last_error=why), DeliveryStatus.BLOCKED, now)


def give_up(delivery: Delivery, why: str, now: datetime) -> Delivery:
    """There is nothing to send, and there never will be."""
    _pending(delivery)
    return _end(replace(delivery, last_error=why), DeliveryStatus.EXHAUSTED, now)


def postpone(delivery: Delivery, why: str, until: datetime) -> Delivery:
    """The grid itself could not begin this try; it does not count."""
    _pending(delivery)
    attempts = max(delivery.attempts - 1, 0)
    return replace(delivery, attempts=attempts, last_error=why, due=until)


def _pending(delivery: Delivery) -> None:
    if delivery.status.final:
        raise IllegalMove(f"a {delivery.status} delivery does not move")


def _end(delivery: Delivery, status: DeliveryStatus, now: datetime) -> Delivery:
    # The token has done its work; keeping it would only keep a risk.
    return replace(delivery, status=status, due=None, token=None, finished_time=now)
