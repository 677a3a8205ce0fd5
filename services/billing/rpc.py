"""The door for calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from junglegrid.billing.v1 import billing_internal_service_pb2 as internal_pb
from junglegrid.billing.v1 import billing_internal_service_pb2_grpc as internal_grpc
from junglegrid.billing.v1 import billing_service_pb2 as public_pb
from junglegrid.billing.v1 import billing_service_pb2_grpc as public_grpc
from junglegrid.common.v1.event_pb2 import RepublishResponse

from libs.rpc import context as call
from libs.tenancy import SystemScope, Tenant
from services.billing import convert
from services.billing.service import BillingService, HoldOrder

Republish = Callable[[datetime], Awaitable[int]]
_OPERATOR = SystemScope("billing: the ledger, read by an operator")


class BillingServicer(public_grpc.BillingServiceServicer):
    """Money for people."""

    def __init__(self, service: BillingService) -> None:
        self._service = service

    async def GetBalance(
        self, request: public_pb.GetBalanceRequest, context: Any
    ) -> public_pb.GetBalanceResponse:
        return convert.to_balance(await self._service.get_balance(call.tenant()))


class BillingInternalServicer(internal_grpc.BillingInternalServiceServicer):
    """Money for the other services."""

    def __init__(self, service: BillingService, republish: Republish) -> None:
        self._service = service
        self._republish = republish

    async def Reserve(
        self, request: internal_pb.ReserveRequest, context: Any
    ) -> internal_pb.ReserveResponse:
        order = HoldOrder(
            request.job_id,
            request.attempt,
            request.period,
            request.amount_micros,
            request.price_micros_per_hour,
        )
        made = await self._service.reserve(Tenant(request.workspace_id), order)
        return convert.to_reservation(made)

    async def Release(
        self, request: internal_pb.ReleaseRequest, context: Any
    ) -> internal_pb.ReleaseResponse:
        released = await self._service.release(Tenant(request.workspace_id), request.job_id)
        return internal_pb.ReleaseResponse(released_micros=released)

    async def Credit(
        self, request: internal_pb.CreditRequest, context: Any
    ) -> internal_pb.CreditResponse:
        available, replayed = await self._service.credit(
            Tenant(request.workspace_id), request.reference, request.amount_micros, request.kind
        )
        return internal_pb.CreditResponse(available_micros=available, replayed=replayed)

    async def ListTransfers(
        self, request: internal_pb.ListTransfersRequest, context: Any
    ) -> internal_pb.ListTransfersResponse:
        scope = Tenant(request.workspace_id) if request.workspace_id else _OPERATOR
        start = convert.after(request.page_token)
        return convert.to_page(
            await self._service.list_transfers(scope, request.job_id, start, request.page_size)
        )

    async def RepublishBilling(
        self, request: internal_pb.RepublishBillingRequest, context: Any
    ) -> internal_pb.RepublishBillingResponse:
        records = await self._republish(convert.since(request))
        return internal_pb.RepublishBillingResponse(result=RepublishResponse(records=records))
