"""Builds identity from its settings."""

from __future__ import annotations

from pathlib import Path

from junglegrid.identity.v1 import identity_internal_service_pb2_grpc as pb_grpc

from libs.db import connect
from libs.process import Context, Module
from services.identity import convert, tables
from services.identity.config import IdentityConfig
from services.identity.repository import IdentityRepository
from services.identity.rpc import IdentityInternalService
from services.identity.service import IdentityService


def build(ctx: Context) -> Module:
    """The module `identity`."""
    database = connect(
        ctx.database_url(),
        metadata=tables.metadata,
        migrations=Path(__file__).parent / "migrations",
        clock=ctx.clock,
        service="identity",
    )
    service = IdentityService(
        database=database,
        repository=IdentityRepository(),
        ids=ctx.ids,
        clock=ctx.clock,
        config=ctx.config(IdentityConfig),
        known_scopes=convert.known_scopes(),
    )
    add = pb_grpc.add_IdentityInternalServiceServicer_to_server
    return Module(
        name="identity", parts=[database], internal=[(add, IdentityInternalService(service))]
    )
