"""Money and time, exact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.domain import Close, Hold, Outcome, Usage
from services.billing.errors import usd
from services.billing.pricing import (
    HOUR_MICROS,
    billed_micros,
    capped,
    cost_micros,
    covered,
    fee_micros,
    settle,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def close(outcome: Outcome, seconds: float | None, *, started: bool = True) -> Close:
    exited = None if seconds is None else START + timedelta(seconds=seconds)
    return Close(
        job_id="job_1",
        attempt=1,
        task_index=0,
        lease_id="lease_1",
        allocation_id="alc_1",
        node_id="node_1",
        outcome=outcome,
        claimed_time=None if seconds is None else START,
        exited_time=exited,
        closed_time=exited or START,
        started=started,
        price_micros_per_hour=1,
        simulated=False,
    )


@pytest.mark.parametrize(
    ("price", "micros", "cost"),
    [
        (0, HOUR_MICROS, 0),
        (1_000_000, HOUR_MICROS, 1_000_000),
        (1_000_000, HOUR_MICROS // 2, 500_000),
        (1, HOUR_MICROS // 2, 0),  # exactly half: to even
        (3, HOUR_MICROS // 2, 2),  # 1.5: to even
        (1, HOUR_MICROS // 2 + 1, 1),
        (2_500_000, 1_234_567, 857),
    ],
)
def test_cost_is_rounded_once_half_to_even(price: int, micros: int, cost: int) -> None:
    assert cost_micros(price, micros) == cost


@pytest.mark.parametrize(
    ("found", "micros"),
    [
        (close(Outcome.EXITED, 1.5), 1_500_000),
        (close(Outcome.CANCELLED, 2), 2_000_000),
        (close(Outcome.CANCELLED, None), 0),
        (close(Outcome.EXITED, -3), 0),
        (close(Outcome.NODE_LOST, 50), 0),
        (close(Outcome.RUNTIME_LOST, 50), 0),
        (close(Outcome.IMAGE_UNAVAILABLE, 50, started=False), 0),
        (close(Outcome.IMAGE_UNAVAILABLE, 50, started=True), 50_000_000),
        (close(Outcome.LAUNCH_INVALID, 50, started=False), 0),
    ],
)
def test_billed_time_is_claim_to_exit_and_ours_is_free(found: Close, micros: int) -> None:
    assert billed_micros(found) == micros


def test_charge_stays_within_the_hold() -> None:
    assert [capped(cost, 10) for cost in (-1, 0, 9, 11)] == [0, 0, 9, 10]


def test_a_hold_lasts_as_long_as_it_pays() -> None:
    assert covered(1_000_000, 2_000_000) == timedelta(minutes=30)
    assert covered(1_000_000, 0) is None


@pytest.mark.parametrize(
    ("micros", "text"), [(0, "$0.00"), (1_250_000, "$1.25"), (1, "$0.000001"), (2_000_000, "$2.00")]
)
def test_amounts_for_people(micros: int, text: str) -> None:
    assert usd(micros) == text


AMOUNT = st.integers(0, 10**12)


@given(
    st.lists(AMOUNT, min_size=1, max_size=4), st.lists(AMOUNT, max_size=4), st.integers(0, 10_000)
)
def test_settlement_pays_what_is_owed_and_covered_and_no_more(
    amounts: list[int], owed: list[int], basis_points: int
) -> None:
    holds = [Hold(f"t{n}", f"r{n}", 1, n, amount) for n, amount in enumerate(amounts)]
    readings = [Usage("l", n, f"n{n}", False, 0, cost, 0, False) for n, cost in enumerate(owed)]
    found = settle(holds, readings, basis_points)
    assert [part.hold for part in found] == holds
    for part in found:
        paid = sum(share for _, share in part.shares) + part.fee_micros
        assert paid + part.rest_micros == part.hold.amount_micros
        assert part.rest_micros >= 0
        assert part.fee_micros >= 0
        assert all(share >= 0 for _, share in part.shares)
    assert sum(part.charge_micros for part in found) == min(sum(owed), sum(amounts))


def test_fee_is_part_of_the_charge() -> None:
    assert fee_micros(1_000, 1_500) == 150
    assert fee_micros(1, 10_000) == 1
    assert fee_micros(1, 0) == 0
