"""Builds webhooks from its settings."""

from __future__ import annotations

import random
from pathlib import Path

from junglegrid.webhooks.v1 import webhook_internal_service_pb2_grpc as grpc_

from libs.bus import Consumer
from libs.db import connect
from libs.process import Context, Module
from libs.sealing import Sealer
from services.webhooks import consumers, loops, tables
from services.webhooks.clients import JobsClient
from services.webhooks.config import WebhooksConfig
from services.webhooks.repository import WebhooksRepository
from services.webhooks.rpc import WebhookInternalService
from services.webhooks.service import Tools, WebhooksService
from services.webhooks.service.sender import HttpSender


def build(ctx: Context) -> Module:
    """The module `webhooks`."""
    config = ctx.config(WebhooksConfig)
    database = connect(
        ctx.database_url(),
        metadata=tables.metadata,
        migrations=Path(__file__).parent / "migrations",
        clock=ctx.clock,
        service="webhooks",
    )
    sender = HttpSender(config)
    service = WebhooksService(
        Tools(
            database=database,
            repository=WebhooksRepository(),
            ids=ctx.ids,
            clock=ctx.clock,
            wake=ctx.wake,
            config=config,
            sealer=Sealer(ctx.encryption_key),
            jobs=JobsClient(ctx.peers("jobs")),
            sender=sender,
            draw=random.random,
        )
    )
    handlers = consumers.handlers(service)
    consumer = Consumer(ctx.bus, database, "webhooks", handlers, ctx.clock)
    timed = loops.parts(service, ctx.clock, ctx.wake, config)
    return Module(
        name="webhooks",
        parts=[database, sender, consumer, *timed],
        internal=[
            (
                grpc_.add_WebhookInternalServiceServicer_to_server,
                WebhookInternalService(service),
            )
        ],
    )
