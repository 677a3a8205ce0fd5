"""Servicer: convert, call, convert."""

from __future__ import annotations

from typing import Any

from junglegrid.webhooks.v1 import webhook_internal_service_pb2 as pb
from junglegrid.webhooks.v1 import webhook_internal_service_pb2_grpc as grpc_

from libs.tenancy import Tenant
from services.webhooks.convert import delivery_view
from services.webhooks.service import WebhooksService


class WebhookInternalService(grpc_.WebhookInternalServiceServicer):
    """Webhooks for operators and tests."""

    def __init__(self, service: WebhooksService) -> None:
        self._service = service

    async def ListDeliveries(
        self, request: pb.ListDeliveriesRequest, context: Any
    ) -> pb.ListDeliveriesResponse:
        tenant = Tenant(request.workspace_id)
        found = await self._service.list_deliveries(tenant, request.job_id)
        return pb.ListDeliveriesResponse(deliveries=[delivery_view(each) for each in found])
