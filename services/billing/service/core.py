"""Calls and time: reserve, release, credit, balance, and holds that run out or were left over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from libs import failpoints
from libs.clock import Clock
from libs.db import Database, Tx, retry_stale
from libs.errors import GridError, InvalidRequest
from libs.ids import IdSource
from libs.telemetry import logger
from libs.tenancy import Scope, SystemScope, Tenant
from libs.wake import Wake
from services.billing.config import BillingConfig
from services.billing.domain import (
    Balance,
    Bill,
    HoldExhausted,
    Reservation,
    ReservationStatus,
    Transfer,
)
from services.billing.errors import HoldInUse, JobIsFinished, ReplayDiffers
from services.billing.repository import BillRows, LedgerRows, reservation, shown
from services.billing.service.judge import Judge, Tell
from services.billing.service.ledger import HoldOrder, Ledger

METERS = "billing.meters"
_log = logger("billing")
NEVER = datetime.min.replace(tzinfo=UTC)
_BATCH = 128
_TIME = SystemScope("billing: holds that run out or are left over")
_RESERVED = failpoints.register(
    "billing.reserve.after_commit", "a hold is durable, and its asker has not been answered"
)


class Jobs(Protocol):
    """What billing asks of jobs."""

    async def lives(self, tenant: Tenant, job_id: str) -> bool:
        """The job exists and is not final. Raises GridError when jobs does not answer."""


class BillingService:
    """Money of workspaces, in micro-USD. `judge` takes the facts of the bus."""

    def __init__(  # noqa: PLR0913 - what the service is built from
        self,
        *,
        database: Database,
        ledger: LedgerRows,
        bills: BillRows,
        jobs: Jobs,
        ids: IdSource,
        clock: Clock,
        wake: Wake,
        config: BillingConfig,
        tell: Tell,
    ) -> None:
        self._clock = clock
        self._database = database
        self._money = ledger
        self._bills = bills
        self._jobs = jobs
        self._ids = ids
        self._wake = wake
        self._config = config
        self._ledger = Ledger(ledger, config)
        self._next_exhaust: datetime | None = None
        # Nothing could be heard before: what was not told while we were down is not missing yet.
        self._up_since = clock.now()
        self.judge = Judge(bills, self._ledger, config, tell, self._hint)

    async def reserve(self, tenant: Tenant, order: HoldOrder) -> Reservation:
        """Holds credit for an attempt's period. The same order again answers with what became of
        it. Raises InsufficientFunds with both amounts, JobIsFinished, ReplayDiffers."""
        if not (tenant.workspace_id and order.job_id and order.attempt > 0 and order.period >= 0):
            raise InvalidRequest("a hold needs a workspace, a job, an attempt from 1 and a period")
        if order.amount_micros < 0 or order.price_micros_per_hour < 0:
            raise InvalidRequest("amount_micros and the price must not be negative")
        made = await retry_stale(
            lambda: self._database.write(lambda tx: self._reserve(tx, tenant, order))
        )
        await _RESERVED.hit_async()
        return made

    def _reserve(self, tx: Tx, tenant: Tenant, order: HoldOrder) -> Reservation:
        known = self._bills.bill(tx, tenant, order.job_id)
        # Where nothing is known of the job, nothing was held for it.
        replayed = self._replayed(tx, tenant, order) if known is not None else None
        if replayed is not None:
            return replayed
        bill = known or Bill(tenant.workspace_id, order.job_id, tx.now())
        if bill.finished_time is not None:
            raise JobIsFinished(f"{order.job_id} is final; nothing more can be held for it")
        hold = order.hold(self._ids.new("res"))
        price = order.price_micros_per_hour
        available = self._ledger.hold(tx, tenant, order.job_id, hold, price)
        self._bills.save_bill(tx, self.judge.metered(tx, bill.hold(hold)))
        return Reservation(
            hold.reservation_id, ReservationStatus.HELD, hold.amount_micros, available
        )

    def _replayed(self, tx: Tx, tenant: Tenant, order: HoldOrder) -> Reservation | None:
        name = order.hold("").transfer_id
        found = self._money.find_transfer(tx, name)
        if found is None:
            return None
        if found.amount_micros != order.amount_micros:
            raise ReplayDiffers(f"{name} was asked for with another amount")
        return reservation(found, self._money.available(tx, tenant))

    async def release(self, tenant: Tenant, job_id: str) -> int:
        """Gives back holds that were never used; returns how much went back, now or before. Raises
        HoldInUse once a start was granted: then the close of the lease settles."""
        return await retry_stale(
            lambda: self._database.write(lambda tx: self._release(tx, tenant, job_id))
        )

    def _release(self, tx: Tx, tenant: Tenant, job_id: str) -> int:
        bill = self._bills.bill(tx, tenant, job_id)
        if bill is not None and bill.in_use:
            raise HoldInUse(f"{job_id} runs; its hold is settled when its lease closes")
        if bill is not None:
            self._bills.save_bill(tx, self.judge.give_back(tx, bill, anyway=True))
        return self._money.given_back(tx, tenant, job_id)

    async def credit(
        self, tenant: Tenant, reference: str, amount_micros: int, kind: str
    ) -> tuple[int, bool]:
        """Puts credit into a wallet, once per reference. Returns what is available, and whether
        the reference had been credited before."""
        if not (tenant.workspace_id and reference and amount_micros > 0):
            raise InvalidRequest("a credit needs a workspace, a reference and a positive amount")

        def work(tx: Tx) -> tuple[int, bool]:
            new = self._ledger.credit(tx, tenant, reference, amount_micros, kind)
            return self._money.available(tx, tenant), not new

        return await retry_stale(lambda: self._database.write(work))

    async def get_balance(self, tenant: Tenant) -> Balance:
        """The wallet of a workspace."""
        return await self._database.read(lambda tx: self._money.balance(tx, tenant))

    async def list_transfers(
        self, scope: Scope, job_id: str, after: tuple[str, str], limit: int
    ) -> tuple[list[Transfer], tuple[str, str] | None]:
        """A page of the ledger, one entry a posting, and where the next page begins."""
        wanted = limit if limit > 0 else self._config.page_size_default
        size = min(wanted, self._config.page_size_max)
        found = await self._database.read(
            lambda tx: self._money.list_postings(tx, scope, job_id, after, size + 1)
        )
        page = found[:size]
        more = (page[-1].transfer_id, page[-1].line) if len(found) > size else None
        return [shown(posting) for posting in page], more

    async def exhaust(self) -> datetime | None:
        """Tells of every hold that is used up; returns when the next one will be."""
        next_time = await self._database.read(lambda tx: self._bills.next_exhaust(tx, _TIME))
        while next_time is not None and next_time <= self._clock.now():
            await retry_stale(lambda: self._database.write(self._exhaust))
            next_time = await self._database.read(lambda tx: self._bills.next_exhaust(tx, _TIME))
        self._next_exhaust = next_time
        return next_time

    def _exhaust(self, tx: Tx) -> int:
        found = self._bills.exhausted(tx, _TIME, _BATCH)
        for bill in found:
            told = self.judge.say(tx, bill, HoldExhausted(bill.claimed_attempt))
            self._bills.save_bill(tx, replace(told, exhaust_time=None))
        return len(found)

    async def sweep(self) -> int:
        """Gives back holds whose job was never queued, or whose lease never closed; returns how
        many. Both are rare: the first is a crash between two services, the second a lost fact."""
        left = await self._database.read(self._left_over)
        over = [bill for bill in left if await self._is_over(bill)]
        if not over:
            return 0
        return await retry_stale(lambda: self._database.write(lambda tx: self._give_all(tx, over)))

    async def _is_over(self, bill: Bill) -> bool:
        """Nobody will need the hold. A job that was not heard of may wait to be told: ask."""
        if bill.finished_time is not None:
            return True
        try:
            return not await self._jobs.lives(Tenant(bill.workspace_id), bill.job_id)
        except GridError as error:
            _log.warning("a hold may be left over, and jobs does not answer", error=repr(error))
            return False

    def _left_over(self, tx: Tx) -> Sequence[Bill]:
        patience = timedelta(seconds=self._config.orphan_seconds)
        orphan = tx.now() - patience if tx.now() - self._up_since > patience else NEVER
        late = tx.now() - timedelta(seconds=self._config.late_close_seconds)
        return self._bills.left_over(tx, _TIME, orphan, late, _BATCH)

    def _give_all(self, tx: Tx, over: Sequence[Bill]) -> int:
        """Gives back the holds of bills that have not changed since they were read."""
        done = 0
        for bill in over:
            now = self._bills.bill(tx, Tenant(bill.workspace_id), bill.job_id)
            if now == bill:
                self._bills.save_bill(tx, self.judge.give_back(tx, bill, anyway=True))
                done += 1
        return done

    def _hint(self, tx: Tx, bill: Bill) -> None:
        """Wakes the meter's loop, but only for a time that is earlier than the one it waits for."""
        due = bill.exhaust_time
        if due is not None and (self._next_exhaust is None or due < self._next_exhaust):
            tx.after_commit(lambda: self._sooner(due))

    def _sooner(self, due: datetime) -> None:
        self._next_exhaust = due
        self._wake.notify(METERS)
