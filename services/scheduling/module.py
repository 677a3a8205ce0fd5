"""Builds scheduling from its settings."""

from __future__ import annotations

from pathlib import Path

from junglegrid.scheduling.v1 import scheduling_service_pb2_grpc as pb_grpc

from libs.bus import Consumer, Relay
from libs.config import read_toml
from libs.db import connect
from libs.process import Context, Module
from services.scheduling import consumers, convert, tables
from services.scheduling.config import SchedulingConfig
from services.scheduling.loops import Planning
from services.scheduling.planner import Catalogue
from services.scheduling.repository import GridRows, QueueRows
from services.scheduling.rpc import SchedulingInternalServicer
from services.scheduling.service import SchedulingService, State
from services.scheduling.service.state import Rows

HERE = Path(__file__).parent


def build(ctx: Context) -> Module:
    """The module `scheduling`."""
    config = ctx.config(SchedulingConfig)
    database = connect(
        ctx.database_url(),
        metadata=tables.metadata,
        migrations=HERE / "migrations",
        clock=ctx.clock,
        service="scheduling",
    )
    relay = Relay(database, ctx.bus, ctx.clock)
    state = State(
        rows=Rows(GridRows(), QueueRows()),
        catalogue=Catalogue(read_toml(HERE / "catalogue.toml", {})),
        ids=ctx.ids,
        wake=ctx.wake,
        config=config,
        tell=convert.event_maker(ctx.ids),
    )
    service = SchedulingService(database=database, state=state, clock=ctx.clock)
    planning = Planning(service, ctx.clock, ctx.wake, config)
    consumer = Consumer(
        ctx.bus,
        database,
        "scheduling",
        consumers.handlers(service),
        ctx.clock,
        pace_seconds=config.consumer_pace_seconds,
    )
    servicer = SchedulingInternalServicer(service, ctx.clock, relay.republish)
    return Module(
        name="scheduling",
        parts=[database, relay, planning, consumer],
        internal=[(pb_grpc.add_SchedulingInternalServiceServicer_to_server, servicer)],
    )
