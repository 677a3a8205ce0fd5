"""StartClaim and Complete: decided once, at the row."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from libs.errors import Unavailable
from services.nodes.domain import (
    Claim,
    ClaimOutcome,
    Closing,
    Lease,
    LeaseState,
    Outcome,
    ProcessExit,
    Report,
)
from services.nodes.errors import IllegalMove, LaunchRefused, LeaseNotFound, StaleSession
from services.nodes.session import NodeSession
from tests.unit.nodes.grid import Grid

EXITED = Closing(Outcome.EXITED, exit=ProcessExit(0))


async def claim(grid: Grid, session: NodeSession, lease: Lease) -> Claim:
    return await grid.service.claims.start_claim(
        session.node_id, session.epoch, lease.lease_id, lease.attempt
    )


async def complete(
    grid: Grid, session: NodeSession, lease: Lease, closing: Closing = EXITED
) -> bool:
    return await grid.service.claims.complete(
        session.node_id, session.epoch, lease.lease_id, lease.attempt, closing
    )


async def test_of_fifty_claims_at_once_one_is_granted(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    grid.launches.gate = asyncio.Event()
    claims = [asyncio.ensure_future(claim(grid, session, lease)) for _ in range(50)]
    while len(grid.launches.asked) < 50:  # noqa: ASYNC110 - all of them have seen ASSIGNED
        await asyncio.sleep(0)
    grid.launches.gate.set()
    outcomes = [each.outcome for each in await asyncio.gather(*claims)]
    assert outcomes.count(ClaimOutcome.GRANT) == 1
    assert outcomes.count(ClaimOutcome.ALREADY_CLAIMED) == 49
    assert grid.kinds() == ["opened", "claimed"]


async def test_the_grant_is_given_again_until_the_node_has_spoken(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    for _ in range(2):
        granted = await claim(grid, session, lease)
        assert granted.outcome is ClaimOutcome.GRANT
        assert granted.launch.image == "python:3.11" and granted.grant
    report = Report(lease.lease_id, LeaseState.STARTING)
    await grid.report(session, report)
    assert (await claim(grid, session, lease)).outcome is ClaimOutcome.ALREADY_CLAIMED
    assert grid.kinds() == ["opened", "claimed"]


async def test_a_lost_grant_that_is_not_wanted_any_more_holds_nothing(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await claim(grid, session, lease)  # the answer is lost, and the job is cancelled

    def refuse(lease: Lease) -> Any:
        raise LaunchRefused

    grid.launches.answer = refuse
    await grid.stop("job_1")
    assert (await claim(grid, session, lease)).outcome is ClaimOutcome.REVOKED
    assert not (await grid.lease(lease.lease_id)).open, "its GPUs would be held for ever"
    assert grid.kinds() == ["opened", "claimed", "closed"]


async def test_a_new_session_is_never_granted_what_the_old_one_claimed(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await claim(grid, session, lease)
    newer = await grid.session(session.node_id)
    assert (await claim(grid, newer, lease)).outcome is ClaimOutcome.ALREADY_CLAIMED
    assert (await claim(grid, session, lease)).outcome is ClaimOutcome.REVOKED
    assert await complete(grid, newer, lease, Closing(Outcome.ABANDONED))
    assert (await grid.lease(lease.lease_id)).outcome is Outcome.ABANDONED


async def test_an_unclaimed_lease_follows_its_node_to_the_next_session(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    newer = await grid.session(session.node_id)
    assert (await claim(grid, session, lease)).outcome is ClaimOutcome.REVOKED
    assert (await claim(grid, newer, lease)).outcome is ClaimOutcome.GRANT


async def test_a_refusal_closes_the_lease_unclaimed(grid: Grid) -> None:
    def refuse(lease: Lease) -> Any:
        raise LaunchRefused

    session = await grid.online()
    lease = await grid.place(session.node_id)
    grid.launches.answer = refuse
    assert (await claim(grid, session, lease)).outcome is ClaimOutcome.REVOKED
    closed = await grid.lease(lease.lease_id)
    assert (closed.outcome, closed.claimed_time) == (Outcome.CANCELLED, None)
    assert grid.kinds() == ["opened", "closed"]


async def test_while_jobs_is_down_the_lease_stays_to_be_asked_for_again(grid: Grid) -> None:
    def fail(lease: Lease) -> Any:
        raise Unavailable("down")

    session = await grid.online()
    lease = await grid.place(session.node_id)
    working, grid.launches.answer = grid.launches.answer, fail
    with pytest.raises(Unavailable):
        await claim(grid, session, lease)
    assert (await grid.lease(lease.lease_id)).state is LeaseState.ASSIGNED
    grid.launches.answer = working
    assert (await claim(grid, session, lease)).outcome is ClaimOutcome.GRANT


async def test_a_stop_during_the_claim_wins(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    grid.launches.gate = asyncio.Event()
    asking = asyncio.ensure_future(claim(grid, session, lease))
    while not grid.launches.asked:  # noqa: ASYNC110 - the call is under way
        await asyncio.sleep(0)
    await grid.stop(lease.job_id)
    grid.launches.gate.set()
    assert (await asking).outcome is ClaimOutcome.REVOKED
    assert grid.kinds() == ["opened", "closed"]


async def test_complete_closes_once(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await claim(grid, session, lease)
    answers = await asyncio.gather(*(complete(grid, session, lease) for _ in range(10)))
    assert sorted(answers) == [False] * 9 + [True]
    assert grid.kinds() == ["opened", "claimed", "started", "exited", "closed"]
    assert not await complete(grid, session, lease, Closing(Outcome.ABANDONED))
    assert (await grid.lease(lease.lease_id)).outcome is Outcome.EXITED


async def test_facts_of_a_job_are_numbered_over_all_its_leases(grid: Grid) -> None:
    session = await grid.online()
    for attempt in (1, 2):
        lease = await grid.place(session.node_id, attempt=attempt)
        await claim(grid, session, lease)
        await complete(grid, session, lease, Closing(Outcome.RUNTIME_LOST))
    history = [each for each in grid.told if each.topic.endswith("LeaseEvent")]
    assert {each.key for each in history} == {"job_1"}
    assert [each.aggregate_seq for each in history] == [1, 2, 3, 4, 5, 6]


async def test_a_stale_epoch_is_refused_at_the_row(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await claim(grid, session, lease)
    await grid.session(session.node_id, held=(lease.lease_id,))
    with pytest.raises(StaleSession):
        await complete(grid, session, lease)
    with pytest.raises(StaleSession):
        await grid.report(session, Report(lease.lease_id, LeaseState.RUNNING))
    assert (await grid.lease(lease.lease_id)).state is LeaseState.STARTING


async def test_another_nodes_lease_is_as_good_as_none(grid: Grid) -> None:
    mine, theirs = await grid.online(), await grid.online()
    lease = await grid.place(mine.node_id)
    assert (await claim(grid, theirs, lease)).outcome is ClaimOutcome.REVOKED
    assert grid.launches.asked == []
    await claim(grid, mine, lease)
    with pytest.raises(LeaseNotFound) as foreign:
        await complete(grid, theirs, lease)
    with pytest.raises(LeaseNotFound) as unknown:
        await grid.service.claims.complete(theirs.node_id, 1, "lease_x", 1, EXITED)
    assert foreign.value.message == unknown.value.message
    await grid.report(theirs, Report(lease.lease_id, LeaseState.RUNNING))
    assert (await grid.lease(lease.lease_id)).state is LeaseState.STARTING


async def test_an_exit_before_the_start_is_refused(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    with pytest.raises(IllegalMove):
        await complete(grid, session, lease)
    await grid.report(session, Report(lease.lease_id, LeaseState.RUNNING))
    assert (await grid.lease(lease.lease_id)).state is LeaseState.ASSIGNED
    assert grid.kinds() == ["opened"]


async def test_a_wrong_attempt_is_refused(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id, attempt=2)
    asked = grid.service.claims
    outcome = await asked.start_claim(session.node_id, session.epoch, lease.lease_id, 1)
    assert outcome.outcome is ClaimOutcome.REVOKED
    with pytest.raises(LeaseNotFound):
        await asked.complete(session.node_id, session.epoch, lease.lease_id, 1, EXITED)
