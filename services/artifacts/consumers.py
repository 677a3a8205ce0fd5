"""The door for facts: which attempts of a job may write."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1 import job_event_pb2 as jobs_pb
from junglegrid.nodes.v1 import node_event_pb2 as nodes_pb

from libs.bus import Handler, lazily
from libs.db import Tx
from libs.tenancy import Tenant
from services.artifacts.service import Uploads


def handlers(uploads: Uploads) -> Mapping[type[Message], Handler]:
    """Fact -> effect."""

    def on_queued(tx: Tx, meta: EventMeta, fact: jobs_pb.JobQueued) -> None:
        uploads.apply_queued(tx, Tenant(meta.workspace_id), meta.aggregate_id, fact.attempt)

    def on_finished(tx: Tx, meta: EventMeta, fact: jobs_pb.JobFinished) -> None:
        tenant = Tenant(meta.workspace_id)
        uploads.apply_finished(
            tx, tenant, meta.aggregate_id, fact.attempt, lease_open=fact.lease_open
        )

    def on_closed(tx: Tx, meta: EventMeta, fact: nodes_pb.LeaseClosed) -> None:
        lease, tenant = fact.lease, Tenant(meta.workspace_id)
        uploads.apply_closed(tx, tenant, lease.job_id, lease.attempt, lease.task_index)

    # Nobody waits for any of these: what is written is fenced by its grant meanwhile.
    return {
        jobs_pb.JobQueued: lazily(on_queued),
        jobs_pb.JobFinished: lazily(on_finished),
        nodes_pb.LeaseClosed: lazily(on_closed),
    }
