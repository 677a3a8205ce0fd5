"""The door for calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from junglegrid.identity.v1 import identity_internal_service_pb2 as pb
from junglegrid.identity.v1 import identity_internal_service_pb2_grpc as pb_grpc

from libs.tenancy import Tenant
from services.identity import convert
from services.identity.service import IdentityService


class IdentityInternalService(pb_grpc.IdentityInternalServiceServicer):
    """Identity for the gateway, for the other services and for operators."""

    def __init__(self, service: IdentityService) -> None:
        self._service = service

    async def ResolveKey(
        self, request: pb.ResolveKeyRequest, context: Any
    ) -> pb.ResolveKeyResponse:
        return convert.to_resolved(await self._service.resolve_key(request.api_key))

    async def WatchRevocations(
        self, request: pb.WatchRevocationsRequest, context: Any
    ) -> AsyncIterator[pb.WatchRevocationsResponse]:
        async for found in self._service.watch_revocations(request.after):
            yield convert.to_revocations(found)

    async def CreateAccount(
        self, request: pb.CreateAccountRequest, context: Any
    ) -> pb.CreateAccountResponse:
        account, existed = await self._service.create_account(request.email, request.name)
        return pb.CreateAccountResponse(account_id=account.account_id, existed=existed)

    async def CreateWorkspace(
        self, request: pb.CreateWorkspaceRequest, context: Any
    ) -> pb.CreateWorkspaceResponse:
        workspace, existed = await self._service.create_workspace(request.account_id, request.name)
        return pb.CreateWorkspaceResponse(workspace_id=workspace.workspace_id, existed=existed)

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: Any
    ) -> pb.CreateApiKeyResponse:
        made = await self._service.create_api_key(
            Tenant(request.workspace_id),
            request.account_id,
            name=request.name,
            scopes=request.scopes,
            expire_time=convert.expire_time(request),
        )
        return pb.CreateApiKeyResponse(key_id=made.key_id, api_key=made.text)

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: Any
    ) -> pb.RevokeApiKeyResponse:
        await self._service.revoke_api_key(Tenant(request.workspace_id), request.key_id)
        return pb.RevokeApiKeyResponse()

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, context: Any
    ) -> pb.ListApiKeysResponse:
        keys = await self._service.list_api_keys(Tenant(request.workspace_id))
        return pb.ListApiKeysResponse(keys=[convert.to_view(key) for key in keys])
