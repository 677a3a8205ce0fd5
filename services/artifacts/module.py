"""Builds artifacts from its settings."""

from __future__ import annotations

from pathlib import Path

from junglegrid.artifacts.v1 import artifact_internal_service_pb2_grpc as internal_grpc
from junglegrid.artifacts.v1 import artifact_service_pb2_grpc as artifact_grpc
from junglegrid.artifacts.v1 import artifact_upload_service_pb2_grpc as upload_grpc
from junglegrid.artifacts.v1 import input_service_pb2_grpc as input_grpc

from libs.bus import Consumer
from libs.db import connect
from libs.process import Context, Module
from services.artifacts import consumers, convert, loops, rpc, tables
from services.artifacts.clients import JobsClient
from services.artifacts.config import ArtifactsConfig
from services.artifacts.repository import ArtifactsRepository, InputsRepository
from services.artifacts.service import Downloads, Inputs, InputSlots, Sweeper, Uploads


def build(ctx: Context) -> Module:
    """The module `artifacts`."""
    config, objects = ctx.config(ArtifactsConfig), ctx.objects
    database = connect(
        ctx.database_url(),
        metadata=tables.metadata,
        migrations=Path(__file__).parent / "migrations",
        clock=ctx.clock,
        service="artifacts",
    )
    rows, files = InputsRepository(), ArtifactsRepository()
    slots = InputSlots(
        database=database, repository=rows, objects=objects, ids=ctx.ids, config=config
    )
    inputs = Inputs(database=database, repository=rows, objects=objects, config=config)
    uploads = Uploads(
        database=database, repository=files, objects=objects, ids=ctx.ids, config=config
    )
    jobs = JobsClient(ctx.peers("jobs"))
    downloads = Downloads(
        database=database, repository=files, jobs=jobs, objects=objects, config=config
    )
    sweeper = Sweeper(
        database=database,
        inputs=rows,
        artifacts=files,
        objects=objects,
        clock=ctx.clock,
        config=config,
    )
    public_inputs = rpc.InputService(slots, inputs, convert.Cursors(ctx.cursor_key))
    internal = rpc.ArtifactInternalService(inputs)
    node = rpc.ArtifactUploadService(uploads, ctx.grants)
    consumer = Consumer(ctx.bus, database, "artifacts", consumers.handlers(uploads), ctx.clock)
    return Module(
        name="artifacts",
        parts=[database, consumer, *loops.parts(sweeper, ctx.clock, config)],
        internal=[
            (input_grpc.add_InputServiceServicer_to_server, public_inputs),
            (artifact_grpc.add_ArtifactServiceServicer_to_server, rpc.ArtifactService(downloads)),
            (internal_grpc.add_ArtifactInternalServiceServicer_to_server, internal),
        ],
        node=[(upload_grpc.add_ArtifactUploadServiceServicer_to_server, node)],
    )
