"""The door for facts: what logs must know of jobs and their leases."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1 import job_event_pb2 as jobs_pb
from junglegrid.nodes.v1 import lease_pb2
from junglegrid.nodes.v1 import node_event_pb2 as nodes_pb

from libs.bus import Handler, lazily
from libs.db import Tx
from libs.tenancy import Tenant
from services.logs.convert import job_status_text
from services.logs.service import LogsService

# Outcomes after which lines may have been left on the node.
_LOST = frozenset({lease_pb2.LEASE_OUTCOME_NODE_LOST, lease_pb2.LEASE_OUTCOME_RUNTIME_LOST})


def handlers(service: LogsService) -> Mapping[type[Message], Handler]:
    """Fact -> effect."""

    def on_queued(tx: Tx, meta: EventMeta, fact: jobs_pb.JobQueued) -> None:
        tenant = Tenant(meta.workspace_id)
        service.apply_status(tx, tenant, meta.aggregate_id, fact.attempt, "queued")

    def on_finished(tx: Tx, meta: EventMeta, fact: jobs_pb.JobFinished) -> None:
        service.apply_finished(
            tx,
            Tenant(meta.workspace_id),
            meta.aggregate_id,
            job_status_text(fact.status),
            exit_code=fact.exit_code if fact.HasField("exit_code") else None,
            lease_open=fact.lease_open,
        )

    def on_started(tx: Tx, meta: EventMeta, fact: nodes_pb.LeaseStarted) -> None:
        tenant = Tenant(meta.workspace_id)
        service.apply_status(tx, tenant, fact.lease.job_id, fact.lease.attempt, "running")

    def on_closed(tx: Tx, meta: EventMeta, fact: nodes_pb.LeaseClosed) -> None:
        lost = fact.HasField("claimed_time") and (fact.outcome in _LOST or fact.log_gap)
        tenant = Tenant(meta.workspace_id)
        service.apply_closed(tx, tenant, fact.lease.job_id, fact.lease.attempt, lost=lost)

    # Only the end is waited for, by those who follow; it takes the others along.
    return {
        jobs_pb.JobQueued: lazily(on_queued),
        jobs_pb.JobFinished: on_finished,
        nodes_pb.LeaseStarted: lazily(on_started),
        nodes_pb.LeaseClosed: lazily(on_closed),
    }
