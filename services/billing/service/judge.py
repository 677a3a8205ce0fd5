"""What the facts of jobs and leases do to a bill, in the transaction of the batch they came in.

The whole state machine of a job's money:

    hold kept     while an attempt may still be billed or tried again
    settled       when all leases of an attempt are closed and none for a failure of ours
    given back    when the job is final and no close is awaited, or when nobody ever queued it

Each handler leaves the bill such that the answer is the same whatever order the facts came in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from libs import failpoints
from libs.db import OutboxEvent, Tx
from libs.tenancy import Tenant
from services.billing.config import BillingConfig
from services.billing.domain import (
    AttemptSettled,
    Bill,
    Claim,
    Close,
    Fact,
    Finish,
    HoldExhausted,
    HoldReleased,
    Told,
    Usage,
)
from services.billing.pricing import billed_micros, cost_micros, covered
from services.billing.repository import BillRows
from services.billing.service.ledger import Ledger

Tell = Callable[[Told], OutboxEvent]
_SETTLING = failpoints.register(
    "billing.settle.in_transaction", "a close is read and settled, and nothing is committed yet"
)


class Judge:
    """Applies facts. Every method is idempotent."""

    def __init__(
        self,
        rows: BillRows,
        ledger: Ledger,
        config: BillingConfig,
        tell: Tell,
        metered: Callable[[Tx, Bill], None],
    ) -> None:
        """`metered` is told of every bill whose meter has just been set."""
        self._rows = rows
        self._ledger = ledger
        self._config = config
        self._tell = tell
        self._metered = metered

    def queued(self, tx: Tx, tenant: Tenant, job_id: str, attempt: int, tasks: int) -> None:
        """An attempt waits for a node: its hold is live. Closes heard before are judged now."""
        before = self._bill(tx, tenant, job_id)
        bill = before.queued(attempt, tasks)
        if before.unjudged:
            for earlier in self._rows.read_attempts(tx, tenant, job_id):
                readings = self._rows.readings(tx, tenant, job_id, earlier)
                bill = self._judge(tx, bill, earlier, readings)
        if bill.unpaid:
            bill = self.say(tx, bill, HoldExhausted(attempt))
        if bill != before:
            self._rows.save_bill(tx, bill)

    def claimed(self, tx: Tx, tenant: Tenant, claim: Claim) -> None:
        """A start was granted: the meter runs."""
        before = self._bill(tx, tenant, claim.job_id)
        bill = before.claimed(claim)
        if bill != before:
            self._rows.save_bill(tx, self.metered(tx, bill))

    def metered(self, tx: Tx, bill: Bill) -> Bill:
        """The bill with the time at which its hold is used up."""
        lasts = covered(bill.held_micros, bill.rate_micros_per_hour)
        if bill.claimed_time is None or not bill.in_use or lasts is None:
            return replace(bill, exhaust_time=None)
        grace = timedelta(seconds=self._config.exhaust_grace_seconds)
        metered = replace(bill, exhaust_time=bill.claimed_time + lasts + grace)
        self._metered(tx, metered)
        return metered

    def closed(self, tx: Tx, tenant: Tenant, close: Close) -> None:
        """A lease is over: its reading is kept, and the attempt judged once all are read."""
        bill = self._bill(tx, tenant, close.job_id)
        readings: list[Usage] = []
        if bill.may_have_read(close.attempt):
            readings = self._rows.readings(tx, tenant, close.job_id, close.attempt)
        if any(reading.lease_id == close.lease_id for reading in readings):
            return
        reading = read(close)
        period = max((hold.period for hold in bill.holds), default=0)
        self._rows.add_usage(tx, tenant, close, reading, period)
        readings = sorted([*readings, reading], key=lambda each: each.task_index)
        if bill.tasks == 0:
            bill = replace(bill, unjudged=True)
        else:
            bill = self._judge(tx, bill, close.attempt, readings)
        self._rows.save_bill(tx, bill)

    def finished(self, tx: Tx, tenant: Tenant, finish: Finish) -> None:
        """The job is final: what no lease can claim any more goes back."""
        before = self._rows.bill(tx, tenant, finish.job_id)
        if before is None:
            return  # never held anything, never ran
        bill = self.give_back(tx, before.finished(finish, tx.now()))
        if bill != before:
            self._rows.save_bill(tx, bill)

    def give_back(self, tx: Tx, bill: Bill, *, anyway: bool = False) -> Bill:
        """Releases the holds of a bill that is over; `anyway` also those of one that is not."""
        if not bill.holds or not (bill.releasable or anyway):
            return bill
        self._ledger.resolve(tx, Tenant(bill.workspace_id), bill.job_id, bill.holds, ())
        given = bill.resolved(0)
        return self.say(tx, given, HoldReleased(bill.held_micros)) if bill.held_micros else given

    def say(self, tx: Tx, bill: Bill, fact: Fact) -> Bill:
        """Tells a fact with the next number of its job."""
        told = replace(bill, event_seq=bill.event_seq + 1)
        tx.emit(self._tell(Told(bill.workspace_id, bill.job_id, told.event_seq, tx.now(), fact)))
        return told

    def _bill(self, tx: Tx, tenant: Tenant, job_id: str) -> Bill:
        found = self._rows.bill(tx, tenant, job_id)
        return found or Bill(tenant.workspace_id, job_id, tx.now())

    def _judge(self, tx: Tx, bill: Bill, attempt: int, readings: Sequence[Usage]) -> Bill:
        """Settles an attempt whose tasks are all read. For a failure of ours the hold stays for the
        next attempt, unless the job is over."""
        if not bill.complete(readings):
            return bill
        bill = bill.closed(attempt)
        ours = any(reading.ours for reading in readings)
        charge = 0
        if not ours or bill.releasable:
            paid = () if ours else readings
            tenant = Tenant(bill.workspace_id)
            charge = self._ledger.resolve(tx, tenant, bill.job_id, bill.holds, paid)
            bill = bill.resolved(charge)
        _SETTLING.hit()
        return self.say(tx, bill, settled(bill, attempt, readings, charge))


def read(close: Close) -> Usage:
    """What the meter says about a lease that has closed."""
    micros = billed_micros(close)
    return Usage(
        lease_id=close.lease_id,
        task_index=close.task_index,
        node_id=close.node_id,
        ours=close.ours,
        billed_micros=micros,
        metered_micros=cost_micros(close.price_micros_per_hour, micros),
        price_micros_per_hour=close.price_micros_per_hour,
        simulated=close.simulated,
    )


def settled(bill: Bill, attempt: int, readings: Sequence[Usage], charge: int) -> AttemptSettled:
    """The fact of a settlement. Billed time and price are those of all tasks together."""
    ours = any(reading.ours for reading in readings)
    return AttemptSettled(
        attempt=attempt,
        cost_micros=charge,
        billed_micros=0 if ours else max(reading.billed_micros for reading in readings),
        price_micros_per_hour=sum(reading.price_micros_per_hour for reading in readings),
        total_cost_micros=bill.total_cost_micros,
        simulated=any(reading.simulated for reading in readings),
        held_micros=bill.held_micros,
    )
