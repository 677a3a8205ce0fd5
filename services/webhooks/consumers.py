"""The door for facts: ends of jobs that asked to be called back."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1.job_event_pb2 import JobFinished

from libs.bus import Handler, only
from libs.db import Tx
from libs.tenancy import Tenant
from services.webhooks.convert import job_status
from services.webhooks.service import WebhooksService


def handlers(service: WebhooksService) -> Mapping[type[Message], Handler]:
    """Fact -> effect."""

    def on_finished(tx: Tx, meta: EventMeta, fact: JobFinished) -> None:
        tenant = Tenant(meta.workspace_id)
        service.record_finished(tx, tenant, meta.aggregate_id, job_status(fact.status))

    # Most jobs ask for no callback: their ends cost nothing here.
    return {JobFinished: only(_wanted, on_finished)}


def _wanted(fact: JobFinished) -> bool:
    return fact.has_callback
