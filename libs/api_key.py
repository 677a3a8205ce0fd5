"""Bearer secrets that carry their own look-up id and checksum.

    jg_ Ab3dE9 <32 letters of secret> <6 letters of CRC-32>
    kind  id

The first nine characters (`jg_Ab3dE9`, the prefix) find the row and may be shown. The checksum lets
a typing error, or a scanner's false find, be refused without asking anybody. Only the SHA-256 of
the whole text is stored: with 190 random bits a slow hash would add nothing.

Kinds: `jg` API keys, `jge` enrolment tokens, `jgn` node credentials.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

API_KEY, ENROLMENT_TOKEN, NODE_CREDENTIAL = "jg", "jge", "jgn"

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LETTERS, SECRET_LETTERS, CHECK_LETTERS = 6, 32, 6
BODY_LETTERS = ID_LETTERS + SECRET_LETTERS + CHECK_LETTERS
# For secret scanners; published in the documentation.
LEAK_PATTERN = rf"\bjg[en]?_[0-9A-Za-z]{{{BODY_LETTERS}}}\b"

_SHAPES = {
    kind: re.compile(rf"{kind}_[0-9A-Za-z]{{{BODY_LETTERS}}}", re.ASCII)
    for kind in (API_KEY, ENROLMENT_TOKEN, NODE_CREDENTIAL)
}
# Bytes from here on would make some letters likelier than others.
_FAIR = 256 - 256 % len(ALPHABET)


@dataclass(frozen=True, slots=True)
class Minted:
    """A new secret: `text` goes to its holder and nowhere else; prefix and digest are kept."""

    text: str = field(repr=False)
    prefix: str
    digest: bytes = field(repr=False)


def mint(kind: str = API_KEY, entropy: Callable[[int], bytes] = os.urandom) -> Minted:
    """Makes a secret of `kind`."""
    body = f"{kind}_{_letters(ID_LETTERS + SECRET_LETTERS, entropy)}"
    text = body + _checksum(body)
    return Minted(text, prefix_of(text), digest(text))


def check_key_format(text: str, kind: str = API_KEY) -> bool:
    """Whether `text` has the form and checksum of a secret of `kind`; it may still be void."""
    return (
        _SHAPES[kind].fullmatch(text) is not None
        and _checksum(text[:-CHECK_LETTERS]) == text[-CHECK_LETTERS:]
    )


def prefix_of(text: str) -> str:
    """The public part, by which the row is found. `text` must have passed `check_key_format`."""
    return text[: text.index("_") + 1 + ID_LETTERS]


def digest(text: str) -> bytes:
    """What is stored instead of the secret: 32 bytes."""
    return hashlib.sha256(text.encode()).digest()


def matches(text: str, stored: bytes) -> bool:
    """Whether `stored` is the digest of `text`, in a time that does not tell how much agrees."""
    return hmac.compare_digest(digest(text), stored)


def _checksum(body: str) -> str:
    value, letters = zlib.crc32(body.encode()), []
    for _ in range(CHECK_LETTERS):
        value, rest = divmod(value, len(ALPHABET))
        letters.append(ALPHABET[rest])
    return "".join(reversed(letters))


def _letters(count: int, entropy: Callable[[int], bytes]) -> str:
    found: list[str] = []
    while len(found) < count:
        found += [ALPHABET[byte % len(ALPHABET)] for byte in entropy(count) if byte < _FAIR]
    return "".join(found[:count])
