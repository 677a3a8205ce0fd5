"""Accounts, workspaces and API keys; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from libs.errors import InvalidRequest
from services.identity.errors import UnknownScope

EMAIL_LETTERS_MAX = 254


class ApiKeyState(StrEnum):
    """Expiry is not a state: it follows from the time."""

    ACTIVE = "active"
    REVOKED = "revoked"


MOVES: Mapping[ApiKeyState, frozenset[ApiKeyState]] = {
    ApiKeyState.ACTIVE: frozenset({ApiKeyState.REVOKED}),
    ApiKeyState.REVOKED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Account:
    """Someone who signs in; `email` is lower case and unique."""

    account_id: str
    email: str
    name: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Workspace:
    """The tenant: jobs, keys and money belong to one."""

    workspace_id: str
    account_id: str
    name: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `expire_time` None means that it does not end by itself."""

    workspace_id: str
    key_id: str
    account_id: str
    name: str
    prefix: str
    digest: bytes = field(repr=False)
    scopes: tuple[str, ...]
    state: ApiKeyState
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    version: int = 1

    def good(self, now: datetime) -> bool:
        """Whether it opens the door at `now`."""
        ended = self.expire_time is not None and self.expire_time <= now
        return self.state is ApiKeyState.ACTIVE and not ended

    def revoked(self, now: datetime) -> ApiKey | None:
        """The key after RevokeApiKey; None when it was revoked before."""
        if ApiKeyState.REVOKED not in MOVES[self.state]:
            return None
        return replace(self, state=ApiKeyState.REVOKED, revoke_time=now, version=self.version + 1)


@dataclass(frozen=True, slots=True)
class Revocations:
    """Keys revoked after a position, and the position they lead to; empty in a beat."""

    key_ids: tuple[str, ...]
    position: int


def clean_email(text: str) -> str:
    """The e-mail in the one form that is stored."""
    email = text.strip().lower()
    local, at, domain = email.partition("@")
    plain = email.isprintable() and " " not in email and len(email) <= EMAIL_LETTERS_MAX
    if not (at and local and domain and plain) or "@" in domain:
        raise InvalidRequest(f"'{text[:64]}' is not an e-mail address; want name@domain")
    return email


def clean_name(text: str, letters_max: int, what: str) -> str:
    """A name without surrounding space; it will be shown, so control characters are refused."""
    name = text.strip()
    if not name or len(name) > letters_max or not name.isprintable():
        raise InvalidRequest(f"{what} must have 1 to {letters_max} printable characters")
    return name


def clean_scopes(scopes: Collection[str], known: frozenset[str]) -> tuple[str, ...]:
    """The scopes sorted and without repeats; each must be one that some route asks for."""
    unknown = sorted(set(scopes) - known)
    if unknown:
        raise UnknownScope(
            f"'{unknown[0][:64]}' is not a scope; the scopes are: {', '.join(sorted(known))}"
        )
    if not scopes:
        raise InvalidRequest("a key needs at least one scope")
    return tuple(sorted(set(scopes)))
