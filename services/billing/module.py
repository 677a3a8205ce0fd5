"""Builds billing from its settings."""

from __future__ import annotations

from pathlib import Path

from junglegrid.billing.v1 import billing_internal_service_pb2_grpc as internal_grpc
from junglegrid.billing.v1 import billing_service_pb2_grpc as public_grpc

from libs.bus import Consumer, Relay
from libs.db import connect
from libs.process import Context, Module
from services.billing import consumers, convert, loops, tables
from services.billing.clients import JobsClient
from services.billing.config import BillingConfig
from services.billing.repository import BillRows, LedgerRows
from services.billing.rpc import BillingInternalServicer, BillingServicer
from services.billing.service import BillingService


def build(ctx: Context) -> Module:
    """The module `billing`."""
    config = ctx.config(BillingConfig)
    database = connect(
        ctx.database_url(),
        metadata=tables.metadata,
        migrations=Path(__file__).parent / "migrations",
        clock=ctx.clock,
        service="billing",
    )
    relay = Relay(database, ctx.bus, ctx.clock)
    service = BillingService(
        database=database,
        ledger=LedgerRows(),
        bills=BillRows(),
        jobs=JobsClient(ctx.peers("jobs")),
        ids=ctx.ids,
        clock=ctx.clock,
        wake=ctx.wake,
        config=config,
        tell=convert.event_maker(ctx.ids),
    )
    consumer = Consumer(
        ctx.bus,
        database,
        "billing",
        consumers.handlers(service),
        ctx.clock,
        pace_seconds=config.consumer_pace_seconds,
    )
    internal = BillingInternalServicer(service, relay.republish)
    return Module(
        name="billing",
        parts=[database, relay, consumer, *loops.parts(service, ctx.clock, ctx.wake, config)],
        internal=[
            (public_grpc.add_BillingServiceServicer_to_server, BillingServicer(service)),
            (internal_grpc.add_BillingInternalServiceServicer_to_server, internal),
        ],
    )
