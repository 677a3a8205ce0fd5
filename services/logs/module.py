"""Builds logs from its settings."""

from __future__ import annotations

from pathlib import Path

from junglegrid.logs.v1 import log_ingest_service_pb2_grpc as ingest_grpc
from junglegrid.logs.v1 import log_internal_service_pb2_grpc as internal_grpc
from junglegrid.logs.v1 import log_service_pb2_grpc as public_grpc

from libs.bus import Consumer
from libs.db import connect
from libs.process import Context, Module
from services.logs import consumers, loops, tables
from services.logs.clients import JobsClient
from services.logs.config import LogsConfig
from services.logs.repository import LogsRepository
from services.logs.rpc import LogIngestService, LogInternalService, LogService
from services.logs.service import LogsService
from services.logs.tail import TailHub


def build(ctx: Context) -> Module:
    """The module `logs`."""
    config = ctx.config(LogsConfig)
    database = connect(
        ctx.database_url(),
        metadata=tables.metadata,
        migrations=Path(__file__).parent / "migrations",
        clock=ctx.clock,
        service="logs",
    )
    service = LogsService(
        database=database,
        repository=LogsRepository(),
        jobs=JobsClient(ctx.peers("jobs")),
        hub=TailHub(config.tail_entries, ctx.clock),
        clock=ctx.clock,
        config=config,
    )
    handlers = consumers.handlers(service)
    consumer = Consumer(
        ctx.bus,
        database,
        "logs",
        handlers,
        ctx.clock,
        pace_seconds=config.consumer_pace_seconds,
    )
    ingest = LogIngestService(service, ctx.grants, ctx.clock, config)
    return Module(
        name="logs",
        parts=[database, consumer, *loops.parts(service, ctx.clock, config)],
        internal=[
            (public_grpc.add_LogServiceServicer_to_server, LogService(service, config)),
            (
                internal_grpc.add_LogInternalServiceServicer_to_server,
                LogInternalService(service),
            ),
        ],
        node=[(ingest_grpc.add_LogIngestServiceServicer_to_server, ingest)],
    )
