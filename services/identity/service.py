"""Use cases of identity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from libs import api_key
from libs.clock import Clock
from libs.db import Database, Tx, retry_stale
from libs.errors import InvalidRequest
from libs.ids import IdSource
from libs.telemetry import logger
from libs.tenancy import SystemScope, Tenant
from services.identity.config import IdentityConfig
from services.identity.domain import (
    Account,
    ApiKey,
    ApiKeyState,
    Revocations,
    Workspace,
    clean_email,
    clean_name,
    clean_scopes,
)
from services.identity.errors import (
    AccountNotFound,
    KeyNotFound,
    KeyRefused,
    TooManyKeys,
    WorkspaceNotFound,
)
from services.identity.repository import IdentityRepository

T = TypeVar("T")
_log = logger("identity")
_RESOLVE = SystemScope("a key says whose it is")
_OPERATOR = SystemScope("accounts and workspaces are made by operators")
_WATCH = SystemScope("revocations are told to every gateway")
# Compared when no row is found, so that an unknown prefix takes as long as a wrong secret.
_NOBODY = bytes(32)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its secret, which is nowhere else."""

    key_id: str
    text: str = field(repr=False)


class IdentityService:
    """Accounts, workspaces, keys, and the list of revocations that gateways follow."""

    def __init__(
        self,
        *,
        database: Database,
        repository: IdentityRepository,
        ids: IdSource,
        clock: Clock,
        config: IdentityConfig,
        known_scopes: frozenset[str],
    ) -> None:
        self._database = database
        self._repository = repository
        self._ids = ids
        self._clock = clock
        self._config = config
        self._known_scopes = known_scopes
        self._watchers: set[asyncio.Event] = set()

    async def resolve_key(self, text: str) -> ApiKey:
        """Who the key is; KeyRefused, always alike, when it opens nothing."""
        if not api_key.check_key_format(text):
            raise KeyRefused
        prefix = api_key.prefix_of(text)

        def find(tx: Tx) -> tuple[ApiKey | None, datetime]:
            return self._repository.key_by_prefix(tx, _RESOLVE, prefix), tx.now()

        key, now = await self._database.read(find)
        genuine = api_key.matches(text, _NOBODY if key is None else key.digest)
        if key is None or not genuine or not key.good(now):
            raise KeyRefused
        return key

    async def create_account(self, email: str, name: str) -> tuple[Account, bool]:
        """The account with this e-mail, and whether it existed."""
        email = clean_email(email)
        name = clean_name(name, self._config.name_letters_max, "name")

        def work(tx: Tx) -> tuple[Account, bool]:
            found = self._repository.account_by_email(tx, _OPERATOR, email)
            if found is not None:
                return found, True
            account = Account(self._ids.new("acc"), email, name, tx.now())
            self._repository.add_account(tx, _OPERATOR, account)
            return account, False

        return await self._write(work)

    async def create_workspace(self, account_id: str, name: str) -> tuple[Workspace, bool]:
        """The account's workspace with this name, and whether it existed."""
        name = clean_name(name, self._config.name_letters_max, "name")

        def work(tx: Tx) -> tuple[Workspace, bool]:
            if self._repository.account(tx, _OPERATOR, account_id) is None:
                raise AccountNotFound("no such account; create it first")
            found = self._repository.workspace_by_name(tx, _OPERATOR, account_id, name)
            if found is not None:
                return found, True
            workspace = Workspace(self._ids.new("ws"), account_id, name, tx.now())
            self._repository.add_workspace(tx, _OPERATOR, workspace)
            return workspace, False

        return await self._write(work)

    async def create_api_key(
        self,
        tenant: Tenant,
        account_id: str,
        *,
        name: str,
        scopes: Sequence[str],
        expire_time: datetime | None,
    ) -> NewKey:
        """A new key of the workspace. Not idempotent: each call makes one."""
        name = clean_name(name, self._config.name_letters_max, "name")
        wanted = clean_scopes(scopes, self._known_scopes)

        def work(tx: Tx) -> NewKey:
            self._check_room(tx, tenant, account_id, expire_time)
            minted = api_key.mint()
            key = ApiKey(
                workspace_id=tenant.workspace_id,
                key_id=self._ids.new("key"),
                account_id=account_id,
                name=name,
                prefix=minted.prefix,
                digest=minted.digest,
                scopes=wanted,
                state=ApiKeyState.ACTIVE,
                create_time=tx.now(),
                expire_time=expire_time,
            )
            self._repository.add_key(tx, tenant, key)
            return NewKey(key.key_id, minted.text)

        return await self._write(work)

    async def revoke_api_key(self, tenant: Tenant, key_id: str) -> None:
        """Voids the key and tells every gateway. A second time changes nothing."""

        def work(tx: Tx) -> None:
            key = self._repository.key(tx, tenant, key_id)
            if key is None:
                raise KeyNotFound("no such key in this workspace")
            revoked = key.revoked(tx.now())
            if revoked is None:
                return
            self._repository.update_key(tx, tenant, revoked)
            self._repository.add_revocation(tx, tenant, revoked)
            tx.after_commit(self._wake_watchers)

        await self._write(work)
        _log.info("key revoked", key_id=key_id, workspace_id=tenant.workspace_id)

    async def list_api_keys(self, tenant: Tenant) -> list[ApiKey]:
        """The keys of the workspace, newest first."""
        return await self._database.read(lambda tx: self._repository.keys(tx, tenant))

    async def watch_revocations(self, after: int) -> AsyncIterator[Revocations]:
        """Revocations after a position as they are committed, and an empty beat every second.

        The table decides: it is read when this process revoked something, and at the latest
        every `revocation_sweep_seconds` for what another replica did.
        """
        rung = asyncio.Event()
        self._watchers.add(rung)
        try:
            position, read_at = after, self._clock.monotonic()
            while True:
                rung.clear()
                found = await self._revocations(position)
                position, read_at = found.position, self._clock.monotonic()
                yield found
                if len(found.key_ids) == self._config.revocations_per_reply_max:
                    continue
                while not await self._rings(rung):
                    if self._clock.monotonic() - read_at >= self._config.revocation_sweep_seconds:
                        break
                    yield Revocations((), position)
        finally:
            self._watchers.discard(rung)

    async def _revocations(self, after: int) -> Revocations:
        limit = self._config.revocations_per_reply_max
        return await self._database.read(
            lambda tx: self._repository.revocations(tx, _WATCH, after, limit)
        )

    async def _rings(self, rung: asyncio.Event) -> bool:
        """True at once when a revocation comes, False after one beat."""
        beat = asyncio.ensure_future(self._clock.sleep(self._config.beat_seconds))
        ring = asyncio.ensure_future(rung.wait())
        try:
            await asyncio.wait({beat, ring}, return_when=asyncio.FIRST_COMPLETED)
            return rung.is_set()
        finally:
            beat.cancel()
            ring.cancel()

    def _wake_watchers(self) -> None:
        for rung in self._watchers:
            rung.set()

    def _check_room(
        self, tx: Tx, tenant: Tenant, account_id: str, expire_time: datetime | None
    ) -> None:
        workspace = self._repository.workspace(tx, tenant)
        if workspace is None or workspace.account_id != account_id:
            raise WorkspaceNotFound("no such workspace of this account; create it first")
        now = tx.now()
        if expire_time is not None and expire_time <= now:
            raise InvalidRequest("expire_time must lie in the future")
        live = [key for key in self._repository.keys(tx, tenant) if key.good(now)]
        if len(live) >= self._config.keys_per_workspace_max:
            raise TooManyKeys(
                f"the workspace has {len(live)} live keys, which is the limit; revoke one first"
            )

    async def _write(self, work: Callable[[Tx], T]) -> T:
        async def once() -> T:
            return await self._database.write(work)

        result: Awaitable[T] = retry_stale(once)
        return await result
