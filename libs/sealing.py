"""Secrets at rest: AES-256-GCM under a key of its own per value.

    0x01 | key id (1) | salt (16) | nonce (12) | ciphertext and tag

The key of one value is HMAC-SHA256(master key, salt), so that no two values share a nonce space.
The value is bound to its place (table|workspace|id): moved to another row it does not open.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FORMAT = 1
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES = 16, 12, 32
_HEAD_BYTES = 2 + _SALT_BYTES + _NONCE_BYTES


class SealBroken(Exception):
    """The bytes were changed, moved to another row, or sealed with a key that is not at hand."""


class Sealer:
    """Seals and opens values for one service. `key` is 32 bytes and is never stored with them."""

    def __init__(
        self, key: bytes, *, key_id: int = 1, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a sealing key has {_KEY_BYTES} bytes")
        self._key = key
        self._key_id = key_id
        self._entropy = entropy

    def seal(self, plain: bytes, *, table: str, workspace_id: str, row_id: str) -> bytes:
        """`plain`, encrypted and bound to its row."""
        salt, nonce = self._entropy(_SALT_BYTES), self._entropy(_NONCE_BYTES)
        place = _place(table, workspace_id, row_id)
        sealed = AESGCM(self._derived(salt)).encrypt(nonce, plain, place)
        return bytes((_FORMAT, self._key_id)) + salt + nonce + sealed

    def open(self, sealed: bytes, *, table: str, workspace_id: str, row_id: str) -> bytes:
        """What was sealed for this row. Raises SealBroken."""
        if len(sealed) < _HEAD_BYTES or sealed[0] != _FORMAT or sealed[1] != self._key_id:
            raise SealBroken(f"a sealed value of {table} has another format or key")
        salt, nonce = sealed[2 : 2 + _SALT_BYTES], sealed[2 + _SALT_BYTES : _HEAD_BYTES]
        place = _place(table, workspace_id, row_id)
        try:
            return AESGCM(self._derived(salt)).decrypt(nonce, sealed[_HEAD_BYTES:], place)
        except InvalidTag:
            raise SealBroken(f"a sealed value of {table} does not open") from None

    def _derived(self, salt: bytes) -> bytes:
        return hmac.digest(self._key, b"jungle-grid seal v1" + salt, hashlib.sha256)


def _place(table: str, workspace_id: str, row_id: str) -> bytes:
    return f"{table}|{workspace_id}|{row_id}".encode()
