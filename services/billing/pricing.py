"""Arithmetic of money and time, pure. Integers only: micro-USD and microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.billing.config import BASIS_POINTS
from services.billing.domain import Close, Hold, Usage

HOUR_MICROS = 3_600_000_000
_MICROSECOND = timedelta(microseconds=1)


def billed_micros(close: Close) -> int:
    """Billed time in microseconds: from the grant to the receipt of the exit, both by the
    database's clock. 0 when nothing was granted, when the failure is ours, or when a clock went
    back."""
    if close.ours or close.claimed_time is None:
        return 0
    return max(0, micros_between(close.claimed_time, close.exited_time or close.closed_time))


def micros_between(start: datetime, end: datetime) -> int:
    """Microseconds from `start` to `end`, exact."""
    return (end - start) // _MICROSECOND


def cost_micros(price_micros_per_hour: int, micros: int) -> int:
    """What that time costs in micro-USD, rounded once, half to even."""
    return _half_even(price_micros_per_hour * micros, HOUR_MICROS)


def capped(costs: int, hold: int) -> int:
    """The charge: never below zero, never above what is held."""
    return min(max(costs, 0), hold)


def fee_micros(charge: int, basis_points: int) -> int:
    """The platform's part of a charge, rounded half to even; the rest is the node's."""
    return _half_even(charge * basis_points, BASIS_POINTS)


def covered(hold: int, price_micros_per_hour: int) -> timedelta | None:
    """How long a hold lasts at that price; None when it never runs out."""
    if price_micros_per_hour <= 0:
        return None
    return timedelta(microseconds=hold * HOUR_MICROS // price_micros_per_hour)


def _half_even(numerator: int, denominator: int) -> int:
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and quotient % 2 == 1):
        quotient += 1
    return quotient


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one hold is resolved: shares by node, the platform's fee, and the rest for the wallet."""

    hold: Hold
    shares: tuple[tuple[str, int], ...]
    fee_micros: int
    rest_micros: int

    @property
    def charge_micros(self) -> int:
        """What is paid out of the hold."""
        return self.hold.amount_micros - self.rest_micros


def settle(
    holds: Sequence[Hold], readings: Sequence[Usage], basis_points: int
) -> tuple[Settlement, ...]:
    """Pays the readings out of the holds, oldest period and lowest task first; what the holds do
    not cover is not charged. Every hold gets exactly one settlement."""
    owed = [(reading.node_id, reading.metered_micros) for reading in readings]
    found = []
    for hold in holds:
        parts, rest = [], hold.amount_micros
        while owed and rest > 0:
            node_id, due = owed.pop(0)
            part = capped(due, rest)
            rest -= part
            if part > 0:
                parts.append((node_id, part))
            if due > part:
                owed.insert(0, (node_id, due - part))
        fees = [fee_micros(part, basis_points) for _, part in parts]
        shares = [(node, part - fee) for (node, part), fee in zip(parts, fees, strict=True)]
        found.append(Settlement(hold, tuple(shares), sum(fees), rest))
    return tuple(found)
