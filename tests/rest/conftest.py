"""One grid for all of these tests, with one simulated node and a key for every scope.

Four workspaces: `ours` runs jobs; `clean` sends what is refused and must stay as it was; `theirs`
owns things that the others must not see; `poor` has no credit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
import grpc.aio
import pytest_asyncio
from junglegrid.billing.v1 import billing_internal_service_pb2 as billing_pb
from junglegrid.billing.v1 import billing_internal_service_pb2_grpc as billing_grpc
from junglegrid.identity.v1 import identity_internal_service_pb2 as identity_pb
from junglegrid.identity.v1 import identity_internal_service_pb2_grpc as identity_grpc

from tests.rest.client import Client
from tests.rest.traces import traces
from tests.support.stack import Stack, stack

SCOPES = ("jobs:estimate", "jobs:submit", "jobs:write", "jobs:read", "logs:read", "billing:read")
CREDIT_MICROS = 100_000_000


@dataclass(slots=True)
class Workspace:
    """A workspace and its keys. `api` has every scope; `with_scopes` makes a key of its own."""

    workspace_id: str
    account_id: str
    api: Client
    site: Site

    async def with_scopes(self, *scopes: str) -> tuple[Client, str]:
        """A client with a new key of these scopes only, and the key's id."""
        key_id, text = await self.site.new_key(self.workspace_id, self.account_id, scopes)
        return self.api.with_key(text), key_id


@dataclass(slots=True)
class Site:
    """The grid, seen from outside (`http`) and as its operator sees it (`channel`)."""

    whole: Stack
    channel: grpc.aio.Channel
    http: aiohttp.ClientSession

    async def new_key(
        self, workspace_id: str, account_id: str, scopes: tuple[str, ...]
    ) -> tuple[str, str]:
        identity = identity_grpc.IdentityInternalServiceStub(self.channel)
        made = await identity.CreateApiKey(
            identity_pb.CreateApiKeyRequest(
                workspace_id=workspace_id,
                account_id=account_id,
                name=" ".join(scopes)[:100] or "none",
                scopes=scopes,
            )
        )
        return made.key_id, made.api_key

    async def revoke(self, workspace_id: str, key_id: str) -> None:
        identity = identity_grpc.IdentityInternalServiceStub(self.channel)
        await identity.RevokeApiKey(
            identity_pb.RevokeApiKeyRequest(workspace_id=workspace_id, key_id=key_id)
        )

    async def workspace(self, name: str, credit_micros: int = CREDIT_MICROS) -> Workspace:
        """A new workspace of an account of its own."""
        identity = identity_grpc.IdentityInternalServiceStub(self.channel)
        account = await identity.CreateAccount(
            identity_pb.CreateAccountRequest(email=f"{name}@rest.example", name=name)
        )
        made = await identity.CreateWorkspace(
            identity_pb.CreateWorkspaceRequest(account_id=account.account_id, name=name)
        )
        if credit_micros:
            await self._credit(made.workspace_id, credit_micros)
        _, text = await self.new_key(made.workspace_id, account.account_id, SCOPES)
        client = Client(self.http, self.whole.grid.url, text)
        return Workspace(made.workspace_id, account.account_id, client, self)

    async def _credit(self, workspace_id: str, micros: int) -> None:
        billing = billing_grpc.BillingInternalServiceStub(self.channel)
        await billing.Credit(
            billing_pb.CreditRequest(
                workspace_id=workspace_id,
                reference=f"rest:{workspace_id}",
                amount_micros=micros,
                kind="starter",
            )
        )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site() -> AsyncIterator[Site]:
    async with AsyncExitStack() as exits:
        whole = await exits.enter_async_context(stack(runtime="simulated"))
        http = await exits.enter_async_context(aiohttp.ClientSession())
        yield Site(whole, whole.channel, http)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ours(site: Site) -> Workspace:
    return await site.workspace("ours")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def theirs(site: Site) -> Workspace:
    return await site.workspace("theirs")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def poor(site: Site) -> Workspace:
    return await site.workspace("poor", credit_micros=0)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def clean_workspace(site: Site) -> AsyncIterator[Workspace]:
    """Compared with itself once more at the very end: nothing came late either."""
    made = await site.workspace("clean")
    before = traces(site.whole.grid.home, made.workspace_id)
    yield made
    assert traces(site.whole.grid.home, made.workspace_id) == before


@pytest_asyncio.fixture(loop_scope="session")
async def clean(site: Site, clean_workspace: Workspace) -> AsyncIterator[Workspace]:
    """The workspace for what must be refused; the test fails if anything of it is left behind."""
    before = traces(site.whole.grid.home, clean_workspace.workspace_id)
    yield clean_workspace
    assert traces(site.whole.grid.home, clean_workspace.workspace_id) == before
