"""Builds jobs from its settings."""

from __future__ import annotations

from pathlib import Path

from junglegrid.jobs.v1 import job_internal_service_pb2_grpc as internal_grpc
from junglegrid.jobs.v1 import job_service_pb2_grpc as public_grpc

from libs.bus import Consumer, Relay
from libs.db import Database, connect
from libs.process import Context, Module
from libs.sealing import Sealer
from services.jobs import clients, consumers, loops, tables
from services.jobs.config import JobsConfig
from services.jobs.convert.facts import teller
from services.jobs.repository import JobsRepository
from services.jobs.rpc import JobInternalService, JobService
from services.jobs.service import JobsService, Tools


def build(ctx: Context) -> Module:
    """The module `jobs`."""
    config = ctx.config(JobsConfig)
    database = connect(
        ctx.database_url(),
        metadata=tables.metadata,
        migrations=Path(__file__).parent / "migrations",
        clock=ctx.clock,
        service="jobs",
    )
    service = JobsService(tools(ctx, config, database))
    relay = Relay(database, ctx.bus, ctx.clock)
    consumer = Consumer(ctx.bus, database, "jobs", consumers.handlers(service), ctx.clock)
    return Module(
        name="jobs",
        parts=[database, relay, consumer, *loops.parts(service, ctx.clock, config)],
        internal=[
            (
                public_grpc.add_JobServiceServicer_to_server,
                JobService(service, ctx.cursor_key),
            ),
            (
                internal_grpc.add_JobInternalServiceServicer_to_server,
                JobInternalService(service, relay.republish),
            ),
        ],
    )


def tools(ctx: Context, config: JobsConfig, database: Database) -> Tools:
    """What the use cases work with; peers are called on first use."""
    return Tools(
        database=database,
        repository=JobsRepository(),
        ids=ctx.ids,
        clock=ctx.clock,
        config=config,
        sealer=Sealer(ctx.encryption_key),
        cursor_key=ctx.cursor_key,
        tell=teller(ctx.ids),
        quotes=clients.SchedulingClient(ctx.peers("scheduling")),
        holds=clients.BillingClient(ctx.peers("billing")),
        inputs=clients.ArtifactsClient(ctx.peers("artifacts")),
        tails=clients.LogsClient(ctx.peers("logs")),
    )
