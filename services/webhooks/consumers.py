"""The door for facts: ends of jobs that asked to be called back."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1.job_event_pb2 import JobFinished

from libs.bus import Handler
from libs.db import Tx
from libs.tenancy import Tenant
from services.webhooks.convert import job_status
from services.webhooks.service import WebhooksService


def handlers(service: WebhooksService) -> Mapping[type[Message], Handler]:
    """Fact -> effect."""

    def on_finished(tx: Tx, meta: EventMeta, fact: JobFinished) -> None:
        if fact.has_callback:
            tenant = Tenant(meta.workspace_id)
            service.record_finished(tx, tenant, meta.aggregate_id, job_status(fact.status))

    return {JobFinished: on_finished}
