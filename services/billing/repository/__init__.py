"""Rows <-> aggregates: `ledger` for money, `bills` for what is known of a job."""

from services.billing.repository.bills import BillRows
from services.billing.repository.ledger import LedgerRows, NewTransfer, reservation, shown

__all__ = ["BillRows", "LedgerRows", "NewTransfer", "reservation", "shown"]
