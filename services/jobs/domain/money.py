"""Money of a submit: how much is held, and with which price. Integer micro-USD."""

from __future__ import annotations

HOUR_SECONDS = 3600


def hold_micros(ceiling_per_hour: int, tasks: int, timeout_seconds: int, budget_micros: int) -> int:
    """Price ceiling x time, rounded up, and never more than the budget (0: no budget)."""
    whole = ceiling_per_hour * tasks * timeout_seconds
    amount = -(-whole // HOUR_SECONDS)
    return min(amount, budget_micros) if budget_micros else amount


def price_ceiling(quoted: int, wished: int, fallback: int) -> int:
    """The highest price per hour that the planner may place at: scheduling's, or the user's, or
    the operator's while no price is known, whichever of the first two is lower."""
    known = quoted or wished or fallback
    return min(known, wished) if wished else known


def cost_micros(price_per_hour: int, seconds: float) -> int:
    """What `seconds` cost, rounded to the nearest micro-USD; for estimates only."""
    return round(price_per_hour * seconds / HOUR_SECONDS)
