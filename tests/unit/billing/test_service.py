"""Holds and settlements on a real database: every order, twice, late."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from sqlalchemy.exc import IntegrityError

from libs import failpoints
from libs.db.drift import schema_drift
from libs.errors import Code, InvalidRequest
from libs.tenancy import SystemScope, Tenant
from services.billing import tables
from services.billing.domain import MOVES, ReservationStatus
from services.billing.errors import HoldInUse, InsufficientFunds, JobIsFinished, ReplayDiffers
from tests.unit.billing.world import WORKSPACE, World, claimed, closed, finished, queued

HOLD = 100_000  # 100 s at the test's price
EVERYONE = SystemScope("test")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    await found.database.start()
    await found.credit(1_000_000)
    yield found
    await found.check()
    await found.database.stop()


async def amounts(world: World) -> tuple[int, int, int]:
    found = await world.balance()
    return found.available_micros, found.reserved_micros, found.spent_micros


async def test_reserve_holds_once(world: World) -> None:
    first = await world.reserve(HOLD)
    again = await world.reserve(HOLD)
    assert (first.status, first.available_micros) == (ReservationStatus.HELD, 900_000)
    assert again == first
    assert await amounts(world) == (900_000, HOLD, 0)
    with pytest.raises(ReplayDiffers):
        await world.reserve(HOLD + 1)


async def test_a_hold_that_the_wallet_lacks_names_both_amounts(world: World) -> None:
    with pytest.raises(InsufficientFunds) as refused:
        await world.reserve(1_000_001)
    assert (refused.value.code, refused.value.reason) == (
        Code.FAILED_PRECONDITION,
        "INSUFFICIENT_FUNDS",
    )
    assert "$1.000001" in refused.value.message
    assert "$1.00 available" in refused.value.message
    assert refused.value.details == {"needed_micros": 1_000_001, "available_micros": 1_000_000}
    assert await amounts(world) == (1_000_000, 0, 0)
    assert not await world.rows("SELECT * FROM bills")


@pytest.mark.parametrize("wrong", [{"amount": -1}, {"attempt": 0}, {"job_id": ""}, {"period": -1}])
async def test_a_hold_that_makes_no_sense_is_refused(world: World, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await world.reserve(**{"amount": HOLD, **wrong})


async def test_parallel_reserves_never_overdraw(world: World) -> None:
    tries = [world.reserve(300_000, job_id=f"job_{n}") for n in range(8)]
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(each, InsufficientFunds) for each in found) == 5
    assert await amounts(world) == (100_000, 900_000, 0)


async def test_credit_counts_once_per_reference(world: World) -> None:
    assert await world.service.credit(WORKSPACE, "top", 5, "test_topup") == (1_000_005, False)
    assert await world.service.credit(WORKSPACE, "top", 5, "test_topup") == (1_000_005, True)
    with pytest.raises(ReplayDiffers):
        await world.service.credit(WORKSPACE, "top", 6, "test_topup")
    with pytest.raises(ReplayDiffers):
        await world.service.credit(Tenant("ws_2"), "top", 5, "test_topup")
    with pytest.raises(InvalidRequest):
        await world.service.credit(WORKSPACE, "zero", 0, "test_topup")


async def test_a_run_is_settled_and_the_rest_goes_back(world: World) -> None:
    await world.reserve(HOLD)
    now = world.clock.now()
    for fact in (queued(), claimed(now), closed(now, 12.5), finished("completed")):
        await world.hear(fact)
    assert await amounts(world) == (1_000_000 - 12_500, 0, 12_500)
    [settled] = world.facts("settled")
    assert (settled.cost_micros, settled.billed_micros, settled.held_micros) == (
        12_500,
        12_500_000,
        0,
    )
    assert not world.facts("hold_released")
    shares = dict(await world.rows("SELECT line, amount_micros FROM postings WHERE line <> ''"))
    assert shares == {"fee": 1_875, "node": 10_625, "rest": HOLD - 12_500}


async def test_the_bill_never_exceeds_the_hold(world: World) -> None:
    await world.reserve(HOLD)
    await world.hear(queued())
    await world.hear(closed(world.clock.now(), 1e9))
    assert await amounts(world) == (1_000_000 - HOLD, 0, HOLD)


def lives(world: World) -> dict[str, tuple[list[Message], int]]:
    """Facts of whole lives of a job, and what each costs."""
    now = world.clock.now()
    return {
        "completed": (
            [queued(), claimed(now), closed(now, 10), finished("completed")],
            10_000,
        ),
        "cancelled while it runs": (
            [
                queued(),
                claimed(now),
                closed(now, 4, "cancelled"),
                finished("cancelled", lease_open=True),
            ],
            4_000,
        ),
        "cancelled in the queue": ([queued(), finished("cancelled")], 0),
        "lost, then completed": (
            [
                queued(),
                closed(now, 30, "node_lost"),
                queued(2),
                closed(now, 7, attempt=2),
                finished("completed", 2),
            ],
            7_000,
        ),
        "lost until it failed": (
            [
                queued(),
                closed(now, 30, "node_lost"),
                queued(2),
                closed(now, 30, "abandoned", attempt=2),
                finished("failed", 2),
            ],
            0,
        ),
    }


@pytest.mark.parametrize(
    "name",
    sorted(
        [
            "completed",
            "cancelled while it runs",
            "cancelled in the queue",
            "lost, then completed",
            "lost until it failed",
        ]
    ),
)
async def test_every_order_ends_the_same(tmp_path: Path, name: str) -> None:
    world = World(tmp_path)
    await world.database.start()
    await world.credit(10**9)
    spent = 0
    facts, cost = lives(world)[name]
    for number, order in enumerate(itertools.permutations(facts)):
        job_id = f"job_{number}"
        await world.reserve(HOLD, job_id=job_id)
        for fact in (*order, *order[::2]):
            copy = type(fact)()
            copy.CopyFrom(fact)
            if copy.DESCRIPTOR.fields_by_name.get("lease"):
                copy.lease.job_id = job_id  # type: ignore[attr-defined]
            await world.hear(copy, job_id)
        spent += cost
    found = await world.balance()
    assert (found.reserved_micros, found.spent_micros) == (0, spent)
    await world.check()
    await world.database.stop()


async def test_a_failure_of_ours_keeps_the_hold_for_the_next_attempt(world: World) -> None:
    await world.reserve(HOLD)
    await world.hear(queued())
    await world.hear(closed(world.clock.now(), 50, "node_lost"))
    assert await amounts(world) == (1_000_000 - HOLD, HOLD, 0)
    [settled] = world.facts("settled")
    assert (settled.cost_micros, settled.billed_micros, settled.held_micros) == (0, 0, HOLD)


async def test_a_gang_is_settled_when_its_last_task_closes(world: World) -> None:
    await world.reserve(HOLD)
    now = world.clock.now()
    await world.hear(queued(tasks=2))
    await world.hear(closed(now, 10, task=0))
    assert await amounts(world) == (1_000_000 - HOLD, HOLD, 0)
    await world.hear(closed(now, 20, task=1))
    assert await amounts(world) == (1_000_000 - 30_000, 0, 30_000)


async def test_a_gang_that_lost_a_node_is_free(world: World) -> None:
    await world.reserve(HOLD)
    now = world.clock.now()
    await world.hear(queued(tasks=2))
    await world.hear(closed(now, 10, "node_lost", task=0))
    await world.hear(closed(now, 10, "cancelled", task=1))
    assert await amounts(world) == (1_000_000 - HOLD, HOLD, 0)


async def test_periods_pay_in_order(world: World) -> None:
    await world.reserve(10_000)
    await world.hear(queued())
    await world.reserve(20_000, period=1)
    await world.hear(closed(world.clock.now(), 15))
    assert await amounts(world) == (1_000_000 - 15_000, 0, 15_000)
    names = [row.transfer_id for row in await world.rows("SELECT * FROM transfers ORDER BY 1")]
    assert "settle:job_1:1:0" in names
    assert "settle:job_1:1:1" in names


async def test_release_gives_back_what_was_not_used(world: World) -> None:
    await world.reserve(HOLD)
    assert await world.service.release(WORKSPACE, "job_1") == HOLD
    assert await world.service.release(WORKSPACE, "job_1") == HOLD
    assert (await world.reserve(HOLD)).status is ReservationStatus.RELEASED
    assert await amounts(world) == (1_000_000, 0, 0)
    assert await world.service.release(WORKSPACE, "job_none") == 0


async def test_release_of_running_work_is_refused(world: World) -> None:
    await world.reserve(HOLD)
    await world.hear(queued())
    await world.hear(claimed(world.clock.now()))
    with pytest.raises(HoldInUse):
        await world.service.release(WORKSPACE, "job_1")


async def test_a_final_job_gets_no_new_hold(world: World) -> None:
    await world.reserve(HOLD)
    await world.hear(finished("cancelled"))
    with pytest.raises(JobIsFinished):
        await world.reserve(HOLD, period=1)


async def test_a_settlement_that_fails_leaves_nothing(world: World) -> None:
    await world.reserve(HOLD)
    await world.hear(queued())
    failpoints.arm("billing.settle.in_transaction=error")
    try:
        with pytest.raises(failpoints.FailpointError):
            await world.hear(closed(world.clock.now(), 10))
    finally:
        failpoints.disarm()
    assert await amounts(world) == (1_000_000 - HOLD, HOLD, 0)
    await world.hear(closed(world.clock.now(), 10))
    assert await amounts(world) == (1_000_000 - 10_000, 0, 10_000)


async def test_a_reserve_whose_answer_is_lost_is_found_again(world: World) -> None:
    failpoints.arm("billing.reserve.after_commit=error")
    try:
        with pytest.raises(failpoints.FailpointError):
            await world.reserve(HOLD)
    finally:
        failpoints.disarm()
    assert (await world.reserve(HOLD)).status is ReservationStatus.HELD
    assert await amounts(world) == (1_000_000 - HOLD, HOLD, 0)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE balances SET available_micros = -1 WHERE account_id = 'wallet:ws_1'",
        "UPDATE postings SET amount_micros = 1",
        "DELETE FROM postings",
        "DELETE FROM transfers",
        "UPDATE transfers SET amount_micros = 1",
        "INSERT INTO postings VALUES ('credit:start', 'x', 'wallet:ws_1', 'held:ws_1', 1)",
        "INSERT INTO postings VALUES ('reserve:job_1:1:0', 'x', 'wallet:ws_1', 'held:ws_1', 0)",
        "INSERT INTO postings VALUES ('none', '', 'wallet:ws_1', 'held:ws_1', 1)",
        "INSERT INTO transfers SELECT 'release:x', workspace_id, job_id, attempt, period, 'void',"
        " transfer_id, NULL, amount_micros - 1, 0, '', 0 FROM transfers WHERE kind = 'pending'",
        "INSERT INTO transfers SELECT 'release:x', workspace_id, job_id, attempt, period, 'void',"
        " NULL, NULL, amount_micros, 0, '', 0 FROM transfers WHERE kind = 'pending'",
        "INSERT INTO transfers SELECT 'release:' || n.value, workspace_id, job_id, attempt, period,"
        " 'void', transfer_id, NULL, amount_micros, 0, '', 0 FROM transfers,"
        " json_each('[1,2]') AS n WHERE kind = 'pending'",
    ],
)
async def test_the_database_itself_refuses_a_broken_ledger(world: World, statement: str) -> None:
    await world.reserve(HOLD)
    with pytest.raises(IntegrityError):
        await world.execute(statement)


async def test_transfers_are_listed_in_pages(world: World) -> None:
    await world.reserve(HOLD)
    await world.hear(queued())
    await world.hear(closed(world.clock.now(), 10))
    seen, place = [], ("", "")
    while True:
        page, more = await world.service.list_transfers(EVERYONE, "", place, 2)
        seen += [each.transfer_id for each in page]
        if more is None:
            break
        place = more
    assert seen == [
        "credit:start",
        "reserve:job_1:1:0",
        "settle:job_1:1:0#fee",
        "settle:job_1:1:0#node",
        "settle:job_1:1:0#rest",
    ]
    none, _ = await world.service.list_transfers(Tenant("ws_2"), "", ("", ""), 0)
    assert none == []


def test_every_move_of_a_reservation() -> None:
    final = {ReservationStatus.SETTLED, ReservationStatus.RELEASED}
    for before, after in itertools.product(ReservationStatus, repeat=2):
        legal = before is ReservationStatus.HELD and after in final
        assert (after in MOVES[before]) == legal


async def test_the_migrations_make_what_the_tables_say(world: World) -> None:
    assert await world.database.read(lambda tx: schema_drift(tx, tables.metadata)) == []
