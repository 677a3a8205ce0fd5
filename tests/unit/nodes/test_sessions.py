"""Sync: what a node is told, and when; who holds the session."""

from __future__ import annotations

import asyncio

import pytest

from libs.errors import InvalidRequest
from services.nodes.domain import (
    Closing,
    Hello,
    LeaseState,
    NodeReport,
    NodeState,
    Outcome,
    Report,
)
from services.nodes.errors import CredentialRefused, EnrolmentRefused, StaleSession
from services.nodes.session import NodeSession, Outgoing
from tests.unit.nodes.grid import INVENTORY, Grid


async def told(grid: Grid, session: NodeSession) -> Outgoing:
    found = await asyncio.wait_for(grid.service.streams.next_reply(session), 5)
    assert found is not None
    return found


async def silent(grid: Grid, session: NodeSession) -> bool:
    asking = asyncio.ensure_future(grid.service.streams.next_reply(session))
    done, _ = await asyncio.wait({asking}, timeout=0.02)
    asking.cancel()
    return not done


async def test_a_token_makes_one_node(grid: Grid) -> None:
    enrolled = await grid.node()
    assert await grid.service.enrolment.authenticate(enrolled.credential) == enrolled.node_id
    for text in ("", "jge_short", enrolled.credential):
        with pytest.raises(EnrolmentRefused):
            await grid.service.enrolment.enrol(text, "n", "", INVENTORY)


async def test_a_token_is_used_once_and_ends(grid: Grid) -> None:
    from services.nodes.domain import TokenDraft

    draft = TokenDraft("ws_p", "P", "", 0, 0, 0.0)
    enrolment = grid.service.enrolment
    token, _ = await enrolment.create_enrolment_token(draft)
    made = await asyncio.gather(
        *(enrolment.enrol(token, "n", "", INVENTORY) for _ in range(10)), return_exceptions=True
    )
    assert len([each for each in made if not isinstance(each, EnrolmentRefused)]) == 1
    late, _ = await enrolment.create_enrolment_token(draft)
    grid.clock.advance(300)
    with pytest.raises(EnrolmentRefused):
        await enrolment.enrol(late, "n", "", INVENTORY)
    with pytest.raises(InvalidRequest):
        await enrolment.create_enrolment_token(TokenDraft("ws_p", "P", "", -1, 0, 0.0))


async def test_the_first_word_is_welcome_and_the_whole_state(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    first = await told(grid, session)
    assert first.reply.welcome and first.reply.full and first.session_token
    assert [each.lease_id for each in first.reply.leases] == [lease.lease_id]
    assert await silent(grid, session)


async def test_a_heartbeat_is_acknowledged_and_tells_nothing(grid: Grid) -> None:
    session = await grid.online()
    await told(grid, session)
    before = len(grid.told)
    for seq in (2, 3):
        await grid.service.streams.record(session, NodeReport(seq=seq))
        reply = (await told(grid, session)).reply
        assert (reply.ack_seq, reply.leases, reply.full, reply.welcome) == (seq, (), False, False)
    await grid.service.streams.flush_renewals()
    assert len(grid.told) == before


async def test_a_new_lease_reaches_the_stream_at_once_and_alone(grid: Grid) -> None:
    session = await grid.online()
    await grid.place(session.node_id)
    await told(grid, session)
    waiting = asyncio.ensure_future(told(grid, session))
    await asyncio.sleep(0)
    second = await grid.place(session.node_id, job_id="job_2")
    reply = (await waiting).reply
    assert not reply.full and [each.lease_id for each in reply.leases] == [second.lease_id]


async def test_a_stop_is_told_and_a_close_by_the_grid_is_told_as_the_whole(grid: Grid) -> None:
    session = await grid.online()
    running = await grid.place(session.node_id, job_id="job_1")
    waiting = await grid.place(session.node_id, job_id="job_2")
    await grid.claim(session, running)
    await told(grid, session)
    await grid.stop("job_1")
    reply = (await told(grid, session)).reply
    assert [(each.lease_id, each.stop_reason) for each in reply.leases] == [
        (running.lease_id, "user")
    ]
    await grid.stop("job_2")
    reply = (await told(grid, session)).reply
    assert reply.full and [each.lease_id for each in reply.leases] == [running.lease_id]
    assert (await grid.lease(waiting.lease_id)).outcome is Outcome.CANCELLED


async def test_what_the_node_completed_needs_no_telling(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await told(grid, session)
    await grid.claim(session, lease)
    await grid.service.claims.complete(
        session.node_id, session.epoch, lease.lease_id, 1, Closing(Outcome.RUNTIME_FAILED)
    )
    assert await silent(grid, session)


async def test_a_node_that_holds_what_it_should_not_is_told_the_whole(grid: Grid) -> None:
    session, other = await grid.online(), await grid.online()
    foreign = await grid.place(other.node_id)
    await told(grid, session)
    reports = [Report(foreign.lease_id, LeaseState.RUNNING), Report("lease_x", LeaseState.EXITED)]
    await grid.report(session, *reports)
    reply = (await told(grid, session)).reply
    assert reply.full and reply.leases == ()


async def test_the_newest_session_wins(grid: Grid) -> None:
    old = await grid.online()
    await told(grid, old)
    new = await grid.session(old.node_id)
    assert (await told(grid, old)).reply.fenced
    with pytest.raises(StaleSession):
        await grid.service.streams.record(old, NodeReport(seq=2))
    grid.service.streams.close_session(old)
    assert grid.deps.sessions.get(old.node_id) is new
    assert new.epoch == old.epoch + 1


async def test_a_session_of_another_replica_is_found_out_by_its_renewal(grid: Grid) -> None:
    old = await grid.online()
    grid.deps.sessions.remove(old)
    await grid.session(old.node_id)
    await grid.service.streams.record(old, NodeReport(seq=2))
    assert not old.fenced
    # The newer session renews the same node, so both are looked at.
    await grid.service.streams.flush_renewals()
    assert (await told(grid, old)).reply.fenced


async def test_kept_leases_get_fresh_grants_in_a_new_session(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await grid.claim(session, lease)
    first = await told(grid, session)
    assert first.grants == ()
    newer = await grid.session(session.node_id, held=(lease.lease_id,))
    reply = await told(grid, newer)
    assert [lease_id for lease_id, _ in reply.grants] == [lease.lease_id]
    grid.clock.advance(601)
    await grid.service.streams.record(newer, NodeReport(seq=2))
    assert len((await told(grid, newer)).grants) == 1
    await grid.service.streams.record(newer, NodeReport(seq=3))
    assert (await told(grid, newer)).grants == ()


async def test_held_leases_that_are_over_are_not_in_the_whole(grid: Grid) -> None:
    session = await grid.online()
    newer = await grid.session(session.node_id, held=("lease_unknown",))
    reply = (await told(grid, newer)).reply
    assert reply.full and reply.leases == ()


async def test_only_changes_of_a_node_are_told(grid: Grid) -> None:
    session = await grid.session((await grid.online()).node_id)
    assert [fact.state for fact in grid.facts("changed")] == [1, 2]  # enrolled, online
    changed = len(grid.facts("changed"))
    await grid.service.streams.record(session, NodeReport(seq=2, inventory=INVENTORY))
    assert len(grid.facts("changed")) == changed
    await grid.service.streams.record(session, NodeReport(seq=3, draining=True))
    await grid.service.streams.record(session, NodeReport(seq=4, draining=True))
    assert len(grid.facts("changed")) == changed + 1
    operations = grid.service.operations
    assert await operations.drain_node(session.node_id, draining=True) is NodeState.DRAINING
    await grid.service.streams.record(session, NodeReport(seq=5))
    assert await operations.drain_node(session.node_id, draining=False) is NodeState.ONLINE


async def test_a_revoked_node_is_out_for_good(grid: Grid) -> None:
    enrolled = await grid.node()
    session = await grid.session(enrolled.node_id)
    lease = await grid.place(session.node_id)
    await told(grid, session)
    await grid.service.operations.revoke_node(session.node_id)
    reply = (await told(grid, session)).reply
    assert reply.fenced and reply.final
    with pytest.raises(CredentialRefused):
        await grid.service.enrolment.authenticate(enrolled.credential)
    with pytest.raises(CredentialRefused):
        await grid.service.streams.open_session(enrolled.node_id, Hello("", ()), NodeReport(1))
    assert (await grid.lease(lease.lease_id)).outcome is Outcome.NODE_LOST
    await grid.service.operations.revoke_node(session.node_id)
    assert grid.kinds() == ["opened", "closed"]


async def test_a_lost_hint_is_healed_by_the_sweep(grid: Grid) -> None:
    session, idle = await grid.online(), await grid.online()
    for one in (session, idle):
        await told(grid, one)
    grid.deps.sessions.remove(session)
    lease = await grid.place(session.node_id)
    grid.deps.sessions.add(session)
    await grid.service.streams.sweep()
    assert not idle.stale
    assert [each.lease_id for each in (await told(grid, session)).reply.leases] == [lease.lease_id]


async def test_a_read_that_is_overtaken_is_made_again(grid: Grid) -> None:
    session = await grid.online()
    session.wanted.clear()
    session.refresh([], changes=session.changes)
    lease = await grid.place(session.node_id)
    session.refresh([], changes=session.changes - 1)
    assert session.stale and lease.lease_id in session.wanted


async def test_nodes_are_listed_by_page(grid: Grid) -> None:
    ids = sorted([(await grid.node()).node_id for _ in range(5)])
    await grid.place(ids[0])
    seen, after = [], ""
    while True:
        page, after = await grid.service.operations.list_nodes("", after, 2)
        seen += [(node.node_id, held) for node, held in page]
        if not after:
            break
    assert [node_id for node_id, _ in seen] == ids
    assert await grid.service.operations.list_nodes("ws_other", "", 0) == ([], "")
