"""Builds nodes from its settings."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from junglegrid.nodes.v1 import (
    metrics_ingest_service_pb2_grpc,
    node_internal_service_pb2_grpc,
    node_session_service_pb2_grpc,
    node_tunnel_service_pb2_grpc,
)

from libs.bus import Consumer, Relay
from libs.db import Database, connect
from libs.process import Context, Module
from libs.rpc import AttemptGrant, Principal
from libs.rpc.authenticate import SESSION_PREFIX
from libs.rpc.token import to_text
from services.nodes import consumers, convert, loops, tables
from services.nodes.clients import JobsClient
from services.nodes.config import NodesConfig
from services.nodes.domain import Lease
from services.nodes.repository import NodesRepository
from services.nodes.rpc import (
    MetricsIngestService,
    NodeInternalService,
    NodeSessionService,
    NodeTunnelService,
)
from services.nodes.service import Deps, NodesService
from services.nodes.session import Sessions


def build(ctx: Context) -> Module:
    """The module `nodes`."""
    config = ctx.config(NodesConfig)
    database = connect(
        ctx.database_url(),
        metadata=tables.metadata,
        migrations=Path(__file__).parent / "migrations",
        clock=ctx.clock,
        service="nodes",
    )
    service = NodesService(_deps(ctx, config, database))
    relay = Relay(database, ctx.bus, ctx.clock)
    consumer = Consumer(ctx.bus, database, "nodes", consumers.handlers(service), ctx.clock)
    internal = NodeInternalService(service, relay.republish)

    async def verify(bearer: str) -> Principal:
        return Principal(kind="node", subject=await service.enrolment.authenticate(bearer))

    return Module(
        name="nodes",
        parts=[database, relay, consumer, *loops.parts(service, ctx.clock)],
        internal=[
            (node_internal_service_pb2_grpc.add_NodeInternalServiceServicer_to_server, internal)
        ],
        node=[
            (
                node_session_service_pb2_grpc.add_NodeSessionServiceServicer_to_server,
                NodeSessionService(service, config),
            ),
            (
                metrics_ingest_service_pb2_grpc.add_MetricsIngestServiceServicer_to_server,
                MetricsIngestService(),
            ),
            (
                node_tunnel_service_pb2_grpc.add_NodeTunnelServiceServicer_to_server,
                NodeTunnelService(),
            ),
        ],
        node_verify=verify,
    )


def _deps(ctx: Context, config: NodesConfig, database: Database) -> Deps:
    def sign_grant(lease: Lease, expires: float) -> bytes:
        return ctx.grants.sign(
            AttemptGrant(
                workspace_id=lease.workspace_id,
                job_id=lease.job_id,
                attempt=lease.attempt,
                task_index=lease.task_index,
                lease_id=lease.lease_id,
                node_id=lease.node_id,
                session_epoch=lease.session_epoch,
                expires=expires,
            )
        )

    def sign_session(node_id: str, epoch: int, expires: float) -> str:
        principal = Principal(kind="node", subject=node_id, session=str(epoch), expires=expires)
        return SESSION_PREFIX + to_text(ctx.node_signer.sign(principal))

    return Deps(
        database=database,
        repository=NodesRepository(),
        ids=ctx.ids,
        clock=ctx.clock,
        config=config,
        sessions=Sessions(),
        launches=JobsClient(ctx.peers("jobs")),
        lease_event=partial(convert.lease_event, ctx.ids),
        node_event=partial(convert.node_event, ctx.ids),
        sign_grant=sign_grant,
        sign_session=sign_session,
    )
