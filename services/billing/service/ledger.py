"""Transfers of the ledger: credit, hold, resolve. All inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.db import Tx
from libs.tenancy import Tenant
from services.billing.config import BillingConfig
from services.billing.domain import (
    PLATFORM,
    Hold,
    Posting,
    TransferKind,
    Usage,
    payable,
    workspace_accounts,
)
from services.billing.errors import InsufficientFunds, ReplayDiffers, usd
from services.billing.pricing import Settlement, settle
from services.billing.repository import LedgerRows, NewTransfer


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """A hold that is asked for; (job, attempt, period) is its identity."""

    job_id: str
    attempt: int
    period: int
    amount_micros: int
    price_micros_per_hour: int

    def hold(self, reservation_id: str) -> Hold:
        """The hold that it asks for."""
        return Hold.of(self.job_id, self.attempt, self.period, self.amount_micros, reservation_id)


class Ledger:
    """Moves money. Amounts are micro-USD."""

    def __init__(self, rows: LedgerRows, config: BillingConfig) -> None:
        self._rows = rows
        self._config = config

    def credit(self, tx: Tx, tenant: Tenant, reference: str, amount_micros: int, memo: str) -> bool:
        """Puts credit into the wallet, once per reference; False when it was there already."""
        transfer_id = f"credit:{reference}"
        found = self._rows.find_transfer(tx, transfer_id)
        if found is not None:
            if (found.workspace_id, found.amount_micros) != (tenant.workspace_id, amount_micros):
                raise ReplayDiffers(
                    f"reference '{reference}' was used for another credit; use a new one"
                )
            return False
        funding, wallet, _ = accounts = workspace_accounts(tenant.workspace_id)
        self._rows.ensure(tx, accounts)
        line = Posting(transfer_id, "", funding.account_id, wallet.account_id, amount_micros)
        new = NewTransfer(
            transfer_id, TransferKind.POST, amount_micros, memo=memo, postings=(line,)
        )
        self._rows.add_transfers(tx, tenant, (new,))
        return True

    def hold(self, tx: Tx, tenant: Tenant, job_id: str, hold: Hold, price: int) -> int:
        """Moves the amount from the wallet to what is held; returns what stays available. `price`
        is the one per hour that the amount was computed with."""
        transfer_id, amount = hold.transfer_id, hold.amount_micros
        available = self._rows.available(tx, tenant)
        if available < amount:
            raise insufficient(amount, available)
        _, wallet, held = accounts = workspace_accounts(tenant.workspace_id)
        self._rows.ensure(tx, accounts)
        line = Posting(transfer_id, "", wallet.account_id, held.account_id, amount)
        new = NewTransfer(
            transfer_id,
            TransferKind.PENDING,
            amount,
            job_id=job_id,
            attempt=hold.attempt,
            period=hold.period,
            reservation_id=hold.reservation_id,
            price_micros_per_hour=price,
            postings=(line,) if amount else (),
        )
        self._rows.add_transfers(tx, tenant, (new,))
        return available - amount

    def resolve(
        self, tx: Tx, tenant: Tenant, job_id: str, holds: Sequence[Hold], readings: Sequence[Usage]
    ) -> int:
        """Resolves all holds of a job: pays the readings, gives the rest back. Returns the charge;
        without readings nothing is charged and every hold is released."""
        parts = settle(holds, readings, self._config.platform_fee_basis_points)
        if not parts:
            return 0
        nodes = {node_id for part in parts for node_id, _ in part.shares}
        if nodes:
            self._rows.ensure(tx, (PLATFORM, *(payable(node) for node in sorted(nodes))))
        new = [_resolution(tenant, job_id, part) for part in parts]
        self._rows.add_transfers(tx, tenant, new)
        return sum(part.charge_micros for part in parts)


def insufficient(needed: int, available: int) -> InsufficientFunds:
    """The refusal, with both amounts."""
    return InsufficientFunds(
        f"this job needs a hold of {usd(needed)} and the wallet has {usd(available)} available; "
        "add credit, or ask for less time or a lower price",
        details={"needed_micros": needed, "available_micros": available},
    )


def _resolution(tenant: Tenant, job_id: str, part: Settlement) -> NewTransfer:
    paid = part.charge_micros > 0
    hold = part.hold
    transfer_id = hold.resolution_id("settle" if paid else "release", job_id)
    _, wallet, held = workspace_accounts(tenant.workspace_id)
    lines = [
        (f"node{place}" if place else "node", payable(node).account_id, share)
        for place, (node, share) in enumerate(part.shares)
    ]
    lines.append(("fee", PLATFORM.account_id, part.fee_micros))
    lines.append(("rest" if paid else "", wallet.account_id, part.rest_micros))
    return NewTransfer(
        transfer_id,
        TransferKind.POST if paid else TransferKind.VOID,
        hold.amount_micros,
        job_id=job_id,
        attempt=hold.attempt,
        period=hold.period,
        pending_id=hold.transfer_id,
        postings=tuple(
            Posting(transfer_id, line, held.account_id, account, micros)
            for line, account, micros in lines
            if micros > 0
        ),
    )
