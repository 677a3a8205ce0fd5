"""Page cursors: a place in one workspace's list, signed, so that nobody can make one up."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

from libs.db.types import from_micros, to_micros
from libs.tenancy import Tenant
from services.jobs.domain.states import Status
from services.jobs.errors import CursorInvalid
from services.jobs.repository import Position

_TAG_BYTES = 12
START = ("", "0")


class Cursors:
    """Writes and reads cursors under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def write(self, tenant: Tenant, status: Status | None, place: Position) -> str:
        """The cursor for what comes behind `place`."""
        text = f"{to_micros(place.created_time)}:{place.job_id}".encode()
        return urlsafe_b64encode(self._tag(tenant, status, text) + text).decode().rstrip("=")

    def read(self, tenant: Tenant, status: Status | None, cursor: str) -> Position | None:
        """The place; None for the start. Raises CursorInvalid."""
        if cursor in START:
            return None
        try:
            raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            tag, text = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
            if not hmac.compare_digest(tag, self._tag(tenant, status, text)):
                raise CursorInvalid()
            micros, _, job_id = text.decode().partition(":")
            return Position(from_micros(int(micros)), job_id)
        except ValueError:
            raise CursorInvalid() from None

    def _tag(self, tenant: Tenant, status: Status | None, text: bytes) -> bytes:
        place = f"jobs|{tenant.workspace_id}|{status.value if status else ''}|".encode()
        return hmac.digest(self._key, place + text, hashlib.sha256)[:_TAG_BYTES]
