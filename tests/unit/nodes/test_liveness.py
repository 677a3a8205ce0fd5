"""Deadlines of nodes and leases, by a clock that stands still."""

from __future__ import annotations

import pytest

from libs.telemetry import metrics
from services.nodes.domain import LeaseState, NodeReport, NodeState, Outcome, Report
from services.nodes.session import NodeSession
from tests.unit.nodes.grid import Grid, reopened


async def step(grid: Grid, seconds: float) -> None:
    """Lets the loop look whenever it wants to during `seconds`, exactly then."""
    left = seconds
    while True:
        pause = await grid.service.liveness.expire()
        if pause > left or pause == 0:
            grid.clock.advance(left)
            return
        grid.clock.advance(pause)
        left -= pause


async def beat(grid: Grid, *sessions: NodeSession) -> None:
    for session in sessions:
        await grid.service.streams.record(session, NodeReport(seq=session.ack_seq + 1))
    await grid.service.streams.flush_renewals()


async def state(grid: Grid, session: NodeSession) -> NodeState:
    page, _ = await grid.service.operations.list_nodes("", "", 500)
    return next(node.state for node, _ in page if node.node_id == session.node_id)


async def test_a_silent_node_is_lost_at_its_deadline_and_not_before(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await grid.claim(session, lease)
    await grid.report(session, Report(lease.lease_id, LeaseState.RUNNING))
    await beat(grid, session)
    heard = grid.clock.now()
    await step(grid, 49.9)
    await grid.service.liveness.expire()
    assert await state(grid, session) is NodeState.ONLINE
    grid.clock.advance(0.1)
    await grid.service.liveness.expire()
    assert await state(grid, session) is NodeState.OFFLINE
    closed = await grid.lease(lease.lease_id)
    assert (closed.outcome, closed.exited_time) == (Outcome.NODE_LOST, heard)
    assert grid.kinds()[-1] == "closed"
    assert session.fenced


async def test_the_loop_sleeps_until_the_next_deadline(grid: Grid) -> None:
    assert await grid.service.liveness.expire() == 50
    first = await grid.online()
    grid.clock.advance(20)
    second = await grid.online()
    assert await grid.service.liveness.expire() == 30
    grid.clock.advance(10)
    await beat(grid, first, second)
    assert await grid.service.liveness.expire() == 50


async def test_renewals_that_are_not_written_yet_count(grid: Grid) -> None:
    session = await grid.online()
    await step(grid, 49)
    await grid.service.streams.record(session, NodeReport(seq=2))
    await step(grid, 49)
    await grid.service.liveness.expire()
    assert await state(grid, session) is NodeState.ONLINE


async def test_after_downtime_deadlines_count_from_the_return(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await grid.service.liveness.expire()
    grid.clock.advance(3600)
    back = reopened(grid)
    assert await back.service.liveness.expire() == 50
    assert await state(back, session) is NodeState.ONLINE
    again = await back.session(session.node_id, held=(lease.lease_id,))
    claimed = await back.claim(again, lease)
    assert claimed.outcome == "grant"
    await step(back, 49)
    assert await state(back, session) is NodeState.ONLINE


async def test_a_process_that_was_stopped_blames_no_node(grid: Grid) -> None:
    sessions = [await grid.online()]
    await grid.service.liveness.expire()
    grid.clock.advance(600)
    await grid.service.liveness.expire()
    assert await state(grid, sessions[0]) is NodeState.ONLINE
    await step(grid, 50)
    await grid.service.liveness.expire()
    assert await state(grid, sessions[0]) is NodeState.OFFLINE


async def test_when_most_nodes_are_silent_none_is_lost(grid: Grid) -> None:
    sessions = [await grid.online() for _ in range(5)]
    await beat(grid, *sessions)
    await grid.service.liveness.expire()
    grid.clock.advance(45)
    await beat(grid, *sessions[:2])
    grid.clock.advance(5)
    assert await grid.service.liveness.expire() == 5
    assert [await state(grid, each) for each in sessions] == [NodeState.ONLINE] * 5
    assert metrics.value("grid_nodes_lost_brake") == 1
    await beat(grid, *sessions[2:4])
    grid.clock.advance(5)
    await grid.service.liveness.expire()
    assert await state(grid, sessions[4]) is NodeState.OFFLINE
    assert metrics.value("grid_nodes_lost_brake") == 0


async def test_losses_one_after_the_other_brake_too(grid: Grid) -> None:
    sessions = [await grid.online() for _ in range(4)]
    await grid.service.liveness.expire()
    grid.clock.advance(48)
    await beat(grid, *sessions[2:])
    grid.clock.advance(2)
    await grid.service.liveness.expire()
    lost = [await state(grid, each) for each in sessions]
    assert lost.count(NodeState.OFFLINE) == 2
    grid.clock.advance(48)
    await grid.service.liveness.expire()
    assert [await state(grid, each) for each in sessions[2:]] == [NodeState.ONLINE] * 2


async def test_the_only_node_is_lost_all_the_same(grid: Grid) -> None:
    session = await grid.online()
    await step(grid, 50)
    await grid.service.liveness.expire()
    assert await state(grid, session) is NodeState.OFFLINE


async def test_a_lease_for_a_lost_node_is_closed_at_once(grid: Grid) -> None:
    session = await grid.online()
    await step(grid, 50)
    await grid.service.liveness.expire()
    lease = await grid.place(session.node_id)
    assert (lease.state, lease.outcome) == (LeaseState.CLOSED, Outcome.NODE_LOST)
    nobody = await grid.place("node_unknown", job_id="job_2")
    assert nobody.outcome is Outcome.NODE_LOST
    assert grid.kinds() == ["opened", "closed"] * 2


async def test_a_lease_for_a_node_out_of_reach_waits_for_its_next_session(grid: Grid) -> None:
    session = await grid.online()
    grid.service.streams.close_session(session)
    lease = await grid.place(session.node_id)
    assert lease.state is LeaseState.ASSIGNED
    again = await grid.session(session.node_id)
    assert (await grid.claim(again, lease)).outcome == "grant"


async def test_a_lost_node_that_comes_back_has_no_leases(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await grid.claim(session, lease)
    await step(grid, 50)
    await grid.service.liveness.expire()
    again = await grid.session(session.node_id, held=(lease.lease_id,))
    out = await grid.service.streams.next_reply(again)
    assert out is not None and out.reply.full and out.reply.leases == ()
    assert await state(grid, again) is NodeState.ONLINE


async def test_a_lease_that_its_node_does_not_start_is_given_back(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await grid.service.liveness.expire()
    for _ in range(12):
        grid.clock.advance(5)
        await beat(grid, session)
        pause = await grid.service.liveness.expire()
    assert pause > 0
    assert (await grid.lease(lease.lease_id)).outcome is Outcome.NODE_REFUSED


async def test_a_placement_that_is_told_twice_opens_one_lease(grid: Grid) -> None:
    session = await grid.online()
    await grid.place(session.node_id)
    grid.allocations -= 1
    await grid.place(session.node_id)
    assert len(await grid.leases()) == 1


@pytest.mark.parametrize("attempts", [(1, 2)])
async def test_a_stop_leaves_later_attempts_alone(grid: Grid, attempts: tuple[int, int]) -> None:
    session = await grid.online()
    first, second = [await grid.place(session.node_id, attempt=each) for each in attempts]
    await grid.stop("job_1", attempt=1)
    assert (await grid.lease(first.lease_id)).outcome is Outcome.CANCELLED
    assert (await grid.lease(second.lease_id)).state is LeaseState.ASSIGNED


async def test_a_lease_that_outlives_its_time_is_told_to_stop(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await grid.claim(session, lease)
    await grid.report(session, Report(lease.lease_id, LeaseState.RUNNING))
    allowed = lease.terms.timeout_seconds + grid.deps.config.overrun_seconds
    for _ in range(int(allowed // 40)):
        await beat(grid, session)
        await step(grid, 40)
    assert not (await grid.lease(lease.lease_id)).stop
    for _ in range(2):
        await beat(grid, session)
        await step(grid, 40)
    assert (await grid.lease(lease.lease_id)).stop_reason == "deadline"


async def test_a_node_that_never_ends_a_stopped_lease_is_overruled(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await grid.claim(session, lease)
    await grid.report(session, Report(lease.lease_id, LeaseState.RUNNING))
    await grid.stop("job_1")
    patience = grid.deps.config.stop_overrule_seconds
    for _ in range(int(patience // 40)):
        await beat(grid, session)  # it is there, and goes on as if nothing had been said
        await step(grid, 40)
    assert (await grid.lease(lease.lease_id)).open
    for _ in range(3):
        await beat(grid, session)
        await step(grid, 40)
    assert (await grid.lease(lease.lease_id)).outcome is Outcome.RUNTIME_LOST
    assert await state(grid, session) is NodeState.ONLINE
    assert lease.lease_id not in session.wanted
