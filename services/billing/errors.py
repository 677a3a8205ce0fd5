"""Why billing refuses."""

from __future__ import annotations

from libs.errors import Conflict, FailedPrecondition, InvalidRequest


class InsufficientFunds(FailedPrecondition):
    """The wallet does not have it."""

    reason = "INSUFFICIENT_FUNDS"


class HoldInUse(Conflict):
    """The hold pays for work that runs."""

    reason = "HOLD_IN_USE"


class JobIsFinished(Conflict):
    """No new hold for a job that is over."""

    reason = "JOB_FINISHED"


class ReplayDiffers(InvalidRequest):
    """The same key came again with other contents."""

    reason = "IDEMPOTENCY_KEY_REUSED"


def usd(micros: int) -> str:
    """Micro-USD for a person: "$1.25", with as many digits as it needs."""
    whole, rest = divmod(micros, 1_000_000)
    digits = f"{rest:06d}".rstrip("0")
    return f"${whole}.{digits:0<2}"
