"""Rows of identity."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from libs.db import Tx
from libs.errors import StaleWrite
from libs.tenancy import Scope, SystemScope, Tenant
from services.identity.domain import Account, ApiKey, ApiKeyState, Revocations, Workspace
from services.identity.tables import accounts, api_keys, revocation_head, revocations, workspaces

_HEAD_ID = 1


class IdentityRepository:
    """Accounts and workspaces stand above tenants, so they take a system scope."""

    def account_by_email(self, tx: Tx, scope: SystemScope, email: str) -> Account | None:
        """The account with this e-mail."""
        row = tx.execute(select(accounts).where(accounts.c.email == email)).mappings().first()
        return None if row is None else Account(**row)

    def account(self, tx: Tx, scope: SystemScope, account_id: str) -> Account | None:
        """The account with this id."""
        where = accounts.c.account_id == account_id
        row = tx.execute(select(accounts).where(where)).mappings().first()
        return None if row is None else Account(**row)

    def add_account(self, tx: Tx, scope: SystemScope, account: Account) -> None:
        """Inserts; raises StaleWrite when the e-mail was taken meanwhile."""
        _insert(tx, insert(accounts).values(**_row(account)))

    def workspace_by_name(
        self, tx: Tx, scope: SystemScope, account_id: str, name: str
    ) -> Workspace | None:
        """The account's workspace with this name."""
        found = select(workspaces).where(
            workspaces.c.account_id == account_id, workspaces.c.name == name
        )
        row = tx.execute(found).mappings().first()
        return None if row is None else Workspace(**row)

    def workspace(self, tx: Tx, scope: Tenant) -> Workspace | None:
        """The tenant's own row."""
        found = select(workspaces).where(workspaces.c.workspace_id == scope.workspace_id)
        row = tx.execute(found).mappings().first()
        return None if row is None else Workspace(**row)

    def add_workspace(self, tx: Tx, scope: SystemScope, workspace: Workspace) -> None:
        """Inserts; raises StaleWrite when the name was taken meanwhile."""
        _insert(tx, insert(workspaces).values(**_row(workspace)))

    def key(self, tx: Tx, scope: Tenant, key_id: str) -> ApiKey | None:
        """One key of the tenant."""
        return _key(tx, _keys(scope).where(api_keys.c.key_id == key_id))

    def key_by_prefix(self, tx: Tx, scope: SystemScope, prefix: str) -> ApiKey | None:
        """The key that shows this prefix; the caller still has to prove the secret."""
        return _key(tx, _keys(scope).where(api_keys.c.prefix == prefix))

    def keys(self, tx: Tx, scope: Tenant) -> list[ApiKey]:
        """All keys of the tenant, newest first."""
        rows = tx.execute(_keys(scope).order_by(api_keys.c.key_id.desc())).mappings()
        return [_to_key(row) for row in rows]

    def add_key(self, tx: Tx, scope: Tenant, key: ApiKey) -> None:
        """Inserts; raises StaleWrite when the random prefix is taken."""
        _insert(tx, insert(api_keys).values(**_row(key) | {"workspace_id": scope.workspace_id}))

    def update_key(self, tx: Tx, scope: Tenant, key: ApiKey) -> None:
        """Writes the key over the version before it; StaleWrite when that is gone."""
        done = tx.execute(
            update(api_keys)
            .where(
                api_keys.c.workspace_id == scope.workspace_id,
                api_keys.c.key_id == key.key_id,
                api_keys.c.version == key.version - 1,
            )
            .values(state=key.state, revoke_time=key.revoke_time, version=key.version)
        )
        if done.rowcount != 1:
            raise StaleWrite

    def add_revocation(self, tx: Tx, scope: Tenant, key: ApiKey) -> None:
        """Puts the key on the list of revocations, at the next position."""
        tx.execute(
            update(revocation_head)
            .where(revocation_head.c.head_id == _HEAD_ID)
            .values(position=revocation_head.c.position + 1)
        )
        values = {
            "position": self.position(tx, SystemScope("revocations")),
            "workspace_id": scope.workspace_id,
            "key_id": key.key_id,
            "revoke_time": key.revoke_time,
        }
        tx.execute(insert(revocations).values(**values))

    def position(self, tx: Tx, scope: SystemScope) -> int:
        """The position of the last revocation; 0 before the first."""
        return int(tx.execute(select(revocation_head.c.position)).scalar_one())

    def revocations(self, tx: Tx, scope: SystemScope, after: int, limit: int) -> Revocations:
        """At most `limit` revocations after a position, in order."""
        rows = tx.execute(
            select(revocations.c.position, revocations.c.key_id)
            .where(revocations.c.position > after)
            .order_by(revocations.c.position)
            .limit(limit)
        ).all()
        ids = tuple(row.key_id for row in rows)
        return Revocations(ids, rows[-1].position if rows else after)


def _insert(tx: Tx, statement: Any) -> None:
    try:
        tx.execute(statement)
    except IntegrityError:
        raise StaleWrite from None


def _keys(scope: Scope) -> Select[Any]:
    found = select(api_keys)
    if isinstance(scope, Tenant):
        return found.where(api_keys.c.workspace_id == scope.workspace_id)
    return found


def _key(tx: Tx, statement: Select[Any]) -> ApiKey | None:
    row = tx.execute(statement).mappings().first()
    return None if row is None else _to_key(row)


def _to_key(row: Any) -> ApiKey:
    values = dict(row)
    return ApiKey(
        **values | {"state": ApiKeyState(values["state"]), "scopes": tuple(values["scopes"])}
    )


def _row(noun: Account | Workspace | ApiKey) -> dict[str, Any]:
    return {name: getattr(noun, name) for name in noun.__dataclass_fields__}
