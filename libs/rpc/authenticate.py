"""Who may call what, for the two kinds of listener.

Internal: the gateway and the services, by a signed principal. Node: daemons, by a bearer text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from libs.errors import PermissionDenied, Unauthenticated
from libs.rpc.context import Scope
from libs.rpc.methods import Method
from libs.rpc.principal import METADATA_KEY, Principal, Verifier
from libs.rpc.token import BadToken, from_text

BEARER = "Bearer "
SESSION_PREFIX = "jgs_"
CREDENTIAL_PREFIX = "jgn_"


class Authenticator(Protocol):
    """Puts a verified principal on the scope, or raises GridError."""

    async def authenticate(self, method: Method, scope: Scope) -> None:
        """Called once per call, before its servicer."""


class InternalAuthenticator:
    """Accepts principals signed for the audience "internal", and enforces the method's policy."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def authenticate(self, method: Method, scope: Scope) -> None:
        if "authorization" in scope.metadata:
            raise PermissionDenied("node and user credentials are not accepted on this listener")
        token = scope.metadata.get(METADATA_KEY)
        if not isinstance(token, bytes):
            raise Unauthenticated("this listener needs a signed principal")
        scope.principal = self._verifier.verify(token)
        check_policy(method, scope.principal)


def check_policy(method: Method, principal: Principal) -> None:
    """Raises PermissionDenied unless `principal` may call `method`.

    Internal services take services, and users that a service passes on (`actor`). All others take
    users with one of the method's scopes, and services where the method is public.
    """
    if principal.kind == "node":
        raise PermissionDenied("nodes may not call this service")
    if method.internal:
        if principal.kind != "service" and not principal.actor:
            raise PermissionDenied("only services may call this method")
        return
    if principal.kind == "service" and not method.public:
        raise PermissionDenied("this method is for users; call it on behalf of one")
    if method.scopes and not method.scopes & principal.scopes:
        wanted = " or ".join(sorted(method.scopes))
        raise PermissionDenied(
            f"this call needs the scope {wanted}",
            details={"required_scopes": sorted(method.scopes)},
        )


class NodeAuthenticator:
    """Accepts session tokens (`jgs_...`, signed for "node-data"), and hands any other bearer text
    to `verify`. Without `verify` the text is left for the servicer, in `context.bearer()`.

    A call that shows nothing goes on without a principal, because enrolment has none yet; whatever
    asks for the principal then refuses it.
    """

    def __init__(
        self,
        verifier: Verifier,
        verify: Callable[[str], Awaitable[Principal]] | None = None,
    ) -> None:
        self._verifier = verifier
        self._verify = verify

    async def authenticate(self, method: Method, scope: Scope) -> None:
        header = scope.metadata.get("authorization")
        if not isinstance(header, str):
            return
        if not header.startswith(BEARER):
            raise Unauthenticated("want 'authorization: Bearer <node credential or session>'")
        text = header[len(BEARER) :]
        scope.bearer = text
        if text.startswith(SESSION_PREFIX):
            scope.principal = self._session(text)
        elif self._verify is not None:
            scope.principal = await self._verify(text)
        if scope.principal is not None and scope.principal.kind != "node":
            raise PermissionDenied("this listener is for nodes")

    def _session(self, text: str) -> Principal:
        try:
            return self._verifier.verify(from_text(text[len(SESSION_PREFIX) :]))
        except BadToken:
            raise Unauthenticated("the session token is not genuine") from None
