"""Use cases of billing: `core` answers calls and time, `judge` takes the facts of jobs and leases,
`ledger` writes transfers."""

from services.billing.service.core import METERS, BillingService
from services.billing.service.judge import Judge
from services.billing.service.ledger import HoldOrder, Ledger

__all__ = ["METERS", "BillingService", "HoldOrder", "Judge", "Ledger"]
