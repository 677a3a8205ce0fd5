"""Signed URLs of the file store: what a URL allows is in it, and its HMAC covers all of that."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from libs.errors import PermissionDenied

_VERSION = "jungle-grid-objects-1"


class SignatureInvalid(PermissionDenied):
    """The URL was not signed by us as it is."""

    reason = "SIGNATURE_INVALID"


class SignatureExpired(PermissionDenied):
    """The URL was good until its time."""

    reason = "SIGNATURE_EXPIRED"


@dataclass(frozen=True, slots=True)
class Grant:
    """What one URL allows. `expires` is in whole seconds since 1970."""

    method: str
    key: str
    expires: int
    content_type: str = ""
    size_max: int = 0
    single_use_id: str = ""
    filename: str = ""


class UrlSigner:
    """Makes and checks the query part of signed URLs."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("the signing key needs at least 32 bytes")
        self._key = key
        # Names the key without giving it away, so that a changed key can be told from tampering.
        self._kid = hashlib.sha256(b"kid:" + key).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"UrlSigner(kid={self._kid})"

    def query(self, grant: Grant) -> str:
        """The signed query string."""
        fields = {
            "e": str(grant.expires),
            "k": self._kid,
            "t": grant.content_type,
            "m": str(grant.size_max) if grant.size_max else "",
            "u": grant.single_use_id,
            "f": grant.filename,
        }
        kept = {name: value for name, value in fields.items() if value}
        return urlencode({**kept, "s": self._sign(grant)})

    def grant(self, method: str, key: str, query: Mapping[str, str], now: float) -> Grant:
        """What the request's URL allows. Raises SignatureInvalid or SignatureExpired."""
        try:
            grant = Grant(
                method=method,
                key=key,
                expires=int(query.get("e", "")),
                content_type=query.get("t", ""),
                size_max=int(query.get("m", "0")),
                single_use_id=query.get("u", ""),
                filename=query.get("f", ""),
            )
        except ValueError:
            raise _invalid() from None
        known = query.get("k", "") == self._kid
        shown = query.get("s", "").encode("utf-8", "replace")
        if not hmac.compare_digest(shown, self._sign(grant).encode()) or not known:
            raise _invalid()
        if now >= grant.expires:
            raise SignatureExpired("this URL has expired; ask for a new one")
        return grant

    def _sign(self, grant: Grant) -> str:
        parts = (
            _VERSION,
            self._kid,
            grant.method,
            grant.key,
            str(grant.expires),
            grant.content_type,
            str(grant.size_max),
            grant.single_use_id,
            grant.filename,
        )
        # Lengths in front, so that no two grants have the same text.
        text = b"".join(b"%d:%s" % (len(p.encode()), p.encode()) for p in parts)
        digest = hmac.new(self._key, text, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _invalid() -> SignatureInvalid:
    return SignatureInvalid(
        "this URL is not valid as it is; use it unchanged, or ask for a new one"
    )
