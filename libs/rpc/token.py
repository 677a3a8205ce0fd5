"""Short signed tokens: length-prefixed text fields and an HMAC-SHA256 over all of them.

The first field names the kind and version of the token and the second its audience, so that one
key can sign several kinds and none passes for another.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

_MAC_BYTES = 32
_FIELD_BYTES_MAX = 0xFFFF
TOKEN_BYTES_MAX = 8192


class BadToken(Exception):
    """Not a token that this key signed."""


def seal(key: bytes, fields: Sequence[str]) -> bytes:
    """The token for `fields`; the same fields always give the same bytes."""
    packed = bytearray()
    for field in fields:
        raw = field.encode()
        if len(raw) > _FIELD_BYTES_MAX:
            raise ValueError("a token field is limited to 65,535 bytes")
        packed += len(raw).to_bytes(2, "big") + raw
    body = bytes(packed)
    return body + hmac.digest(key, body, hashlib.sha256)


def unseal(key: bytes, token: bytes) -> list[str]:
    """The fields of a token made by `seal` with the same key; raises BadToken otherwise."""
    body, mac = token[:-_MAC_BYTES], token[-_MAC_BYTES:]
    if len(token) > TOKEN_BYTES_MAX or not hmac.compare_digest(
        mac, hmac.digest(key, body, hashlib.sha256)
    ):
        raise BadToken
    fields, at = [], 0
    while at < len(body):
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        fields.append(body[at + 2 : end].decode())
        at = end
    return fields


def to_text(token: bytes) -> str:
    """The token as URL-safe text, for a bearer header."""
    return urlsafe_b64encode(token).rstrip(b"=").decode("ascii")


def from_text(text: str) -> bytes:
    """Inverse of `to_text`; raises BadToken for text that is not base64."""
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise BadToken from None
