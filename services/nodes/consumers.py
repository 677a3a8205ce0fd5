"""The door for facts: placements to open leases for, jobs to stop."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1 import job_event_pb2
from junglegrid.scheduling.v1 import placement_event_pb2

from libs.bus import Handler
from libs.db import Tx
from libs.tenancy import Tenant
from services.nodes import convert
from services.nodes.service import NodesService


def handlers(service: NodesService) -> Mapping[type[Message], Handler]:
    """Fact -> effect."""

    def on_placed(tx: Tx, meta: EventMeta, fact: placement_event_pb2.PlacementCommitted) -> None:
        placement = convert.placement(meta.aggregate_id, fact)
        service.leases.apply_placed(tx, Tenant(meta.workspace_id), placement)

    def on_stop(tx: Tx, meta: EventMeta, fact: job_event_pb2.JobStopRequested) -> None:
        reason = convert.stop_reason(fact.reason)
        service.leases.apply_stop(tx, meta.aggregate_id, fact.attempt, reason)

    def on_finished(tx: Tx, meta: EventMeta, fact: job_event_pb2.JobFinished) -> None:
        if fact.lease_open:
            reason = convert.stop_reason(fact.reason)
            service.leases.apply_stop(tx, meta.aggregate_id, fact.attempt, reason)

    return {
        placement_event_pb2.PlacementCommitted: on_placed,
        job_event_pb2.JobStopRequested: on_stop,
        job_event_pb2.JobFinished: on_finished,
    }
