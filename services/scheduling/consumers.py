"""The door for facts: jobs that wait or end, leases that close, nodes that change."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1.job_event_pb2 import JobFinished, JobQueued, JobStopRequested
from junglegrid.nodes.v1.node_event_pb2 import LeaseClosed, NodeChanged

from libs.bus import Handler, lazily
from libs.db import Tx
from libs.tenancy import SystemScope, Tenant
from services.scheduling import convert
from services.scheduling.service import SchedulingService

_BUS = SystemScope("scheduling: facts of nodes and leases")


def handlers(service: SchedulingService) -> Mapping[type[Message], Handler]:
    """Fact -> effect."""
    facts = service.facts

    def on_queued(tx: Tx, meta: EventMeta, fact: JobQueued) -> None:
        facts.queued(tx, Tenant(meta.workspace_id), convert.entry(meta, fact))

    def on_stop_requested(tx: Tx, meta: EventMeta, fact: JobStopRequested) -> None:
        facts.stopped(tx, Tenant(meta.workspace_id), meta.aggregate_id, fact.attempt)

    def on_finished(tx: Tx, meta: EventMeta, fact: JobFinished) -> None:
        facts.ended(tx, Tenant(meta.workspace_id), meta.aggregate_id)

    def on_closed(tx: Tx, meta: EventMeta, fact: LeaseClosed) -> None:
        facts.lease_closed(tx, _BUS, fact.lease.allocation_id, convert.failed_node(fact))

    def on_node(tx: Tx, meta: EventMeta, fact: NodeChanged) -> None:
        facts.node_changed(tx, _BUS, convert.node(meta, fact))

    # What is freed matters at once only to somebody who waits, and behind somebody who waits a new
    # job waits too. A job that is over while it waits was told to stop as well, which is not lazy.
    return {
        JobQueued: lazily(on_queued, when=service.somebody_waits),
        JobStopRequested: on_stop_requested,
        JobFinished: lazily(on_finished),
        LeaseClosed: lazily(on_closed, when=service.nobody_waits),
        NodeChanged: on_node,
    }
