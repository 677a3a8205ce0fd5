"""The door for facts: what happens to jobs and their leases moves money."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1.job_event_pb2 import JobFinished, JobQueued
from junglegrid.nodes.v1.node_event_pb2 import LeaseClaimed, LeaseClosed

from libs.bus import Handler, lazily
from libs.db import Tx
from libs.tenancy import Tenant
from services.billing import convert
from services.billing.service import BillingService


def handlers(service: BillingService) -> Mapping[type[Message], Handler]:
    """Fact -> effect."""
    judge = service.judge

    def on_queued(tx: Tx, meta: EventMeta, fact: JobQueued) -> None:
        tenant = Tenant(meta.workspace_id)
        judge.queued(tx, tenant, meta.aggregate_id, fact.attempt, fact.tasks)

    def on_finished(tx: Tx, meta: EventMeta, fact: JobFinished) -> None:
        finish = convert.finish(meta.aggregate_id, fact)
        judge.finished(tx, Tenant(meta.workspace_id), finish)

    def on_claimed(tx: Tx, meta: EventMeta, fact: LeaseClaimed) -> None:
        judge.claimed(tx, Tenant(meta.workspace_id), convert.claim(fact))

    def on_closed(tx: Tx, meta: EventMeta, fact: LeaseClosed) -> None:
        judge.closed(tx, Tenant(meta.workspace_id), convert.close(fact))

    # Only a close is waited for, by whoever looks at the cost; it takes the others along.
    return {
        JobQueued: lazily(on_queued),
        JobFinished: lazily(on_finished),
        LeaseClaimed: lazily(on_claimed),
        LeaseClosed: on_closed,
    }
