"""Identifiers: a prefix that says what the thing is, and a ULID that sorts by creation time."""

from __future__ import annotations

import os
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable
from uuid import UUID

from libs.clock import Clock
from libs.errors import InvalidRequest

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ULID_LENGTH = 26
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
_RANDOM_BITS = 80
_ULID_MAX = (1 << 128) - 1


def _encode(value: int) -> str:
    # Two letters at a time from a table: half the divisions of the plain loop.
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def _decode(text: str) -> int:
    value = 0
    for letter in text:
        value = (value << 5) | _VALUES[letter]
    return value


def is_ulid(text: str) -> bool:
    """True for 26 upper-case Crockford letters that fit in 128 bits."""
    return len(text) == ULID_LENGTH and text[0] <= "7" and all(letter in _VALUES for letter in text)


def parse(prefix: str, text: str) -> str:
    """Returns `text` if it is an id with this prefix; raises InvalidRequest otherwise."""
    head, _, tail = text.partition("_")
    if head != prefix or not is_ulid(tail):
        raise InvalidRequest(f"'{text[:64]}' is not an id of the form {prefix}_<26 letters>")
    return text


def ulid_to_uuid(ulid: str) -> str:
    """The same 128 bits as a UUID; a prefix in front of the ULID is dropped."""
    tail = ulid.rpartition("_")[2]
    if not is_ulid(tail):
        raise InvalidRequest(f"'{ulid[:64]}' is not a ULID")
    return str(UUID(int=_decode(tail)))


def uuid_to_ulid(uuid: str) -> str:
    """The ULID with the same 128 bits; inverse of `ulid_to_uuid`."""
    try:
        return _encode(UUID(uuid).int)
    except ValueError:
        raise InvalidRequest(f"'{uuid[:64]}' is not a UUID") from None


class IdSource:
    """Makes ids. Safe from any thread, since database functions run on a writer thread."""

    def __init__(self, clock: Clock, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._entropy = entropy
        self._last = 0
        self._lock = threading.Lock()

    def new(self, prefix: str) -> str:
        """`new("job")` is `job_` and a ULID; later calls of one source sort after earlier ones."""
        return f"{prefix}_{self.ulid()}"

    def ulid(self) -> str:
        """A ULID greater than every earlier one of this source, also when the clock steps back."""
        millis = int(self._clock.now().timestamp() * 1000)
        with self._lock:
            fresh = (millis << _RANDOM_BITS) | int.from_bytes(self._entropy(10), "big")
            if fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS:
                fresh = self._last + 1
            if fresh > _ULID_MAX:
                raise OverflowError("the clock is past the end of ULID time")
            self._last = fresh
        return _encode(fresh)

    def secret(self, bytes: int = 32) -> str:
        """Unguessable URL-safe text from `bytes` random bytes."""
        return urlsafe_b64encode(self._entropy(bytes)).rstrip(b"=").decode("ascii")
