"""Health, reflection and channelz: for operators, on the internal listener only."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection


async def add_tools(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Registers the three standard services. They show no data of any tenant."""
    statuses = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(statuses, server)
    for name in ("", *services):
        await statuses.set(name, health_pb2.HealthCheckResponse.SERVING)
    channelz.add_channelz_servicer(server)
    reflection.enable_server_reflection(
        (*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
