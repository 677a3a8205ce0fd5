"""The door for facts: what nodes and billing tell about a job."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message
from junglegrid.billing.v1 import billing_event_pb2 as billing_pb
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.nodes.v1 import node_event_pb2 as nodes_pb

from libs import failpoints
from libs.bus import Handler, lazily
from libs.db import Tx
from libs.tenancy import Tenant
from services.jobs.convert import facts as convert
from services.jobs.convert.shapes import time_of
from services.jobs.service import JobsService

_AFTER_EFFECT = failpoints.register(
    "jobs.consume.after_effect", "a lease's effect is written, its batch is not committed"
)


def handlers(service: JobsService) -> Mapping[type[Message], Handler]:
    """Fact -> effect."""
    return {**_lease_handlers(service), **_billing_handlers(service)}


def _lease_handlers(service: JobsService) -> Mapping[type[Message], Handler]:
    facts = service.facts

    def on_opened(tx: Tx, meta: EventMeta, fact: nodes_pb.LeaseOpened) -> None:
        lease, place = convert.lease(fact.lease), convert.placement(fact)
        time = time_of(meta.occurred_time)
        facts.lease_opened(tx, Tenant(meta.workspace_id), lease, place, time)

    def on_claimed(tx: Tx, meta: EventMeta, fact: nodes_pb.LeaseClaimed) -> None:
        lease, time = convert.lease(fact.lease), time_of(fact.claimed_time)
        facts.lease_claimed(tx, Tenant(meta.workspace_id), lease, time)

    def on_progressed(tx: Tx, meta: EventMeta, fact: nodes_pb.LeaseProgressed) -> None:
        lease, reports = convert.lease(fact.lease), convert.reports(fact.phases)
        time = time_of(meta.occurred_time)
        facts.lease_progressed(tx, Tenant(meta.workspace_id), lease, reports, time)

    def on_started(tx: Tx, meta: EventMeta, fact: nodes_pb.LeaseStarted) -> None:
        started = convert.started(fact)
        facts.lease_started(tx, Tenant(meta.workspace_id), convert.lease(fact.lease), started)

    def on_exited(tx: Tx, meta: EventMeta, fact: nodes_pb.LeaseExited) -> None:
        lease, time = convert.lease(fact.lease), time_of(fact.exited_time)
        facts.lease_exited(tx, Tenant(meta.workspace_id), lease, time, convert.exit_of(fact.exit))

    def on_closed(tx: Tx, meta: EventMeta, fact: nodes_pb.LeaseClosed) -> None:
        lease, closed = convert.lease(fact.lease), convert.closed(fact)
        facts.lease_closed(tx, Tenant(meta.workspace_id), lease, closed)
        _AFTER_EFFECT.hit()

    # The end is what people wait for; the steps before it may come a moment later, and a short job
    # then costs one commit instead of five.
    return {
        nodes_pb.LeaseOpened: lazily(on_opened),
        nodes_pb.LeaseClaimed: lazily(on_claimed),
        nodes_pb.LeaseProgressed: lazily(on_progressed),
        nodes_pb.LeaseStarted: lazily(on_started),
        nodes_pb.LeaseExited: lazily(on_exited),
        nodes_pb.LeaseClosed: on_closed,
    }


def _billing_handlers(service: JobsService) -> Mapping[type[Message], Handler]:
    facts = service.facts

    def on_settled(tx: Tx, meta: EventMeta, fact: billing_pb.AttemptSettled) -> None:
        amounts = (
            fact.total_cost_micros,
            fact.billed_micros,
            fact.price_micros_per_hour,
            fact.held_micros,
        )
        facts.settled(tx, Tenant(meta.workspace_id), meta.aggregate_id, amounts)

    def on_exhausted(tx: Tx, meta: EventMeta, fact: billing_pb.HoldExhausted) -> None:
        tenant = Tenant(meta.workspace_id)
        facts.hold_exhausted(tx, tenant, meta.aggregate_id, fact.attempt)

    def on_released(tx: Tx, meta: EventMeta, fact: billing_pb.HoldReleased) -> None:
        facts.hold_released(tx, Tenant(meta.workspace_id), meta.aggregate_id)

    return {
        billing_pb.AttemptSettled: lazily(on_settled),
        billing_pb.HoldExhausted: on_exhausted,
        billing_pb.HoldReleased: lazily(on_released),
    }
