"""Who is calling, and the signed form in which services tell each other."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Literal

from libs.clock import Clock, SystemClock
from libs.errors import PermissionDenied, Unauthenticated
from libs.rpc.token import BadToken, seal, unseal

INTERNAL = "internal"
NODE_DATA = "node-data"
METADATA_KEY = "jg-principal-bin"
_KIND = "principal.v1"
_CACHE_MAX = 4096

Kind = Literal["user", "service", "node"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. `subject` is a key or account id, a service name or a node id.

    `expires` is in Unix seconds; 0 lets the signer choose. `actor` is the service that calls on
    behalf of a user. `session` belongs to nodes: session id and epoch, as the nodes service wrote
    them.
    """

    kind: Kind
    subject: str
    workspace_id: str = ""
    scopes: frozenset[str] = field(default_factory=frozenset)
    expires: float = 0.0
    actor: str = ""
    session: str = ""

    def on_behalf(self, service: str) -> Principal:
        """The same caller as `service` passes it on."""
        return self if self.actor == service else replace(self, actor=service)


class Signer:
    """Signs principals for one audience. A signed one is kept and reused for half its life."""

    def __init__(
        self,
        key: bytes,
        *,
        audience: str = INTERNAL,
        ttl_seconds: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        self._key = key
        self._audience = audience
        self._ttl = ttl_seconds
        self._clock = clock or SystemClock()
        self._kept: OrderedDict[Principal, tuple[float, bytes]] = OrderedDict()

    def sign(self, principal: Principal) -> bytes:
        """A token for `principal`, valid until its `expires`, or for the signer's time to live."""
        now = self._clock.now().timestamp()
        kept = self._kept.get(principal)
        if kept is not None and now < kept[0]:
            return kept[1]
        expires = principal.expires or now + self._ttl
        token = seal(self._key, _fields(self._audience, principal, expires))
        self._kept[principal] = (now + (expires - now) / 2, token)
        if len(self._kept) > _CACHE_MAX:
            self._kept.popitem(last=False)
        return token


class Verifier:
    """Checks tokens for one audience; remembers those already checked until they expire."""

    def __init__(self, key: bytes, *, audience: str = INTERNAL, clock: Clock | None = None) -> None:
        self._key = key
        self._audience = audience
        self._clock = clock or SystemClock()
        self._seen: OrderedDict[bytes, Principal] = OrderedDict()

    def verify(self, token: bytes) -> Principal:
        """The principal in `token`. Raises Unauthenticated when it is forged or has expired, and
        PermissionDenied when it is genuine but made for another audience."""
        found = self._seen.get(token)
        if found is None:
            found = self._open(token)
            self._seen[token] = found
            if len(self._seen) > _CACHE_MAX:
                self._seen.popitem(last=False)
        if found.expires <= self._clock.now().timestamp():
            self._seen.pop(token, None)
            raise Unauthenticated("the caller's token has expired")
        return found

    def _open(self, token: bytes) -> Principal:
        try:
            kind, audience, *fields = unseal(self._key, token)
        except (BadToken, ValueError):
            raise Unauthenticated("the caller's token is not genuine") from None
        if kind != _KIND:
            raise Unauthenticated("the caller's token is not genuine")
        if audience != self._audience:
            raise PermissionDenied(f"a token for '{audience}' is not accepted here")
        return _principal(fields)


def _fields(audience: str, principal: Principal, expires: float) -> list[str]:
    return [
        _KIND,
        audience,
        principal.kind,
        principal.subject,
        principal.workspace_id,
        " ".join(sorted(principal.scopes)),
        f"{expires:.3f}",
        principal.actor,
        principal.session,
    ]


def _principal(fields: list[str]) -> Principal:
    kind, subject, workspace_id, scopes, expires, actor, session = fields
    return Principal(
        kind=kind,  # type: ignore[arg-type] # it was signed by us
        subject=subject,
        workspace_id=workspace_id,
        scopes=frozenset(scopes.split()),
        expires=float(expires),
        actor=actor,
        session=session,
    )
