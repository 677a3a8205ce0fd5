"""Between protos and billing's own words."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.billing.v1 import billing_event_pb2 as event_pb
from junglegrid.billing.v1 import billing_internal_service_pb2 as internal_pb
from junglegrid.billing.v1 import billing_service_pb2 as public_pb
from junglegrid.jobs.v1 import job_event_pb2, job_pb2
from junglegrid.nodes.v1 import lease_pb2, node_event_pb2

from libs.bus import event
from libs.db import OutboxEvent
from libs.errors import InvalidRequest
from libs.ids import IdSource
from services.billing.domain import (
    CURRENCY,
    AttemptSettled,
    Balance,
    Claim,
    Close,
    Finish,
    HoldExhausted,
    HoldReleased,
    Outcome,
    Reservation,
    ReservationStatus,
    Told,
    Transfer,
)

STATUSES = {
    ReservationStatus.HELD: public_pb.RESERVATION_STATUS_HELD,
    ReservationStatus.SETTLED: public_pb.RESERVATION_STATUS_SETTLED,
    ReservationStatus.RELEASED: public_pb.RESERVATION_STATUS_RELEASED,
}
OUTCOMES = {
    lease_pb2.LEASE_OUTCOME_EXITED: Outcome.EXITED,
    lease_pb2.LEASE_OUTCOME_CANCELLED: Outcome.CANCELLED,
    lease_pb2.LEASE_OUTCOME_NODE_LOST: Outcome.NODE_LOST,
    lease_pb2.LEASE_OUTCOME_ABANDONED: Outcome.ABANDONED,
    lease_pb2.LEASE_OUTCOME_RUNTIME_FAILED: Outcome.RUNTIME_FAILED,
    lease_pb2.LEASE_OUTCOME_RUNTIME_LOST: Outcome.RUNTIME_LOST,
    lease_pb2.LEASE_OUTCOME_IMAGE_UNAVAILABLE: Outcome.IMAGE_UNAVAILABLE,
    lease_pb2.LEASE_OUTCOME_NODE_REFUSED: Outcome.NODE_REFUSED,
    lease_pb2.LEASE_OUTCOME_LAUNCH_INVALID: Outcome.LAUNCH_INVALID,
}
# A job that ended in one of these by itself has had its last lease closed, though maybe not here.
_AFTER_A_CLOSE = frozenset({job_pb2.JOB_STATUS_COMPLETED, job_pb2.JOB_STATUS_FAILED})


_FINAL = _AFTER_A_CLOSE | {job_pb2.JOB_STATUS_REJECTED, job_pb2.JOB_STATUS_CANCELLED}


def job_is_final(status: job_pb2.JobStatus.ValueType) -> bool:
    """The job will not change any more."""
    return status in _FINAL


class _HasTimes(Protocol):
    def HasField(self, field_name: Any) -> bool: ...  # noqa: N802 - protobuf's name


def event_maker(ids: IdSource) -> Callable[[Told], OutboxEvent]:
    """How a fact becomes a row of the outbox."""

    def tell(told: Told) -> OutboxEvent:
        return event(
            ids,
            to_event(told),
            aggregate_id=told.job_id,
            aggregate_seq=told.seq,
            workspace_id=told.workspace_id,
            occurred_time=told.time,
        )

    return tell


def to_event(told: Told) -> event_pb.BillingEvent:
    """The message of a fact, without its meta."""
    fact = told.fact
    if isinstance(fact, AttemptSettled):
        return event_pb.BillingEvent(
            settled=event_pb.AttemptSettled(
                attempt=fact.attempt,
                cost_micros=fact.cost_micros,
                billed_micros=fact.billed_micros,
                price_micros_per_hour=fact.price_micros_per_hour,
                total_cost_micros=fact.total_cost_micros,
                simulated=fact.simulated,
                held_micros=fact.held_micros,
            )
        )
    if isinstance(fact, HoldExhausted):
        exhausted = event_pb.HoldExhausted(attempt=fact.attempt)
        return event_pb.BillingEvent(hold_exhausted=exhausted)
    assert isinstance(fact, HoldReleased)
    released = event_pb.HoldReleased(released_micros=fact.released_micros)
    return event_pb.BillingEvent(hold_released=released)


def claim(fact: node_event_pb2.LeaseClaimed) -> Claim:
    """A granted start."""
    lease = fact.lease
    return Claim(lease.job_id, lease.attempt, _time(fact.claimed_time), fact.price_micros_per_hour)


def close(fact: node_event_pb2.LeaseClosed) -> Close:
    """The end of a lease."""
    lease = fact.lease
    return Close(
        job_id=lease.job_id,
        attempt=lease.attempt,
        task_index=lease.task_index,
        lease_id=lease.lease_id,
        allocation_id=lease.allocation_id,
        node_id=lease.node_id,
        outcome=OUTCOMES[fact.outcome],
        claimed_time=_optional(fact, "claimed_time"),
        exited_time=_optional(fact, "exited_time"),
        closed_time=_time(fact.closed_time),
        started=fact.HasField("started_time"),
        price_micros_per_hour=fact.price_micros_per_hour,
        simulated=fact.simulated,
    )


def finish(job_id: str, fact: job_event_pb2.JobFinished) -> Finish:
    """The end of a job. A cancelled job without an open lease never gets one: StartClaim asks jobs
    first. Every other end follows the close of a lease, if there was one at all."""
    awaits = fact.lease_open or fact.status in _AFTER_A_CLOSE
    return Finish(job_id, fact.attempt, awaits)


def to_reservation(found: Reservation) -> internal_pb.ReserveResponse:
    """A hold for its asker."""
    return internal_pb.ReserveResponse(
        reservation_id=found.reservation_id,
        status=STATUSES[found.status],
        amount_micros=found.amount_micros,
        available_micros=found.available_micros,
    )


def to_balance(found: Balance) -> public_pb.GetBalanceResponse:
    """The wallet for people."""
    reply = public_pb.GetBalanceResponse(
        balance=found.available_micros + found.reserved_micros,
        reserved=found.reserved_micros,
        available=found.available_micros,
        currency=CURRENCY,
        lifetime_total_spent=found.spent_micros,
    )
    reply.as_of.FromDatetime(found.as_of)
    return reply


def to_page(
    found: tuple[list[Transfer], tuple[str, str] | None],
) -> internal_pb.ListTransfersResponse:
    """A page of the ledger."""
    page, more = found
    return internal_pb.ListTransfersResponse(
        transfers=[
            internal_pb.Transfer(
                id=each.transfer_id,
                debit_account=each.debit,
                credit_account=each.credit,
                amount_micros=each.amount_micros,
                currency=CURRENCY,
            )
            for each in page
        ],
        next_page_token=_token(more) if more else "",
    )


def after(page_token: str) -> tuple[str, str]:
    """Where a page begins."""
    if not page_token:
        return "", ""
    try:
        transfer_id, line = urlsafe_b64decode(page_token).decode().split("\n")
    except ValueError:
        raise InvalidRequest("page_token is not one that this method gave") from None
    return transfer_id, line


def _token(more: tuple[str, str]) -> str:
    return urlsafe_b64encode("\n".join(more).encode()).decode()


def since(request: internal_pb.RepublishBillingRequest) -> datetime:
    """From when to publish again; from the beginning when unset."""
    return _time(request.range.since_time)


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _optional(message: _HasTimes, name: str) -> datetime | None:
    return _time(getattr(message, name)) if message.HasField(name) else None
