"""Every pair of lease states, and what a report may cause."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.nodes.domain import (
    MOVES,
    NODE_MOVES,
    Closing,
    Exited,
    Inventory,
    Lease,
    LeaseState,
    Node,
    NodeState,
    Outcome,
    Phase,
    ProcessExit,
    Progressed,
    Report,
    Resources,
    Started,
    Terms,
)
from services.nodes.errors import IllegalMove

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXIT = ProcessExit(0)


def lease(state: LeaseState) -> Lease:
    terms = Terms("plc_1", Resources(1, 1, 1), (), 1, "res_1", 60, False, "r", "p")
    fresh = Lease("ws_1", "lease_1", "job_1", 1, 0, "alc_1", "node_1", 1, terms, NOW)
    if state is LeaseState.ASSIGNED:
        return fresh
    claimed = fresh.claim(1, NOW).lease
    running = claimed.report(Report("lease_1", LeaseState.RUNNING), NOW).lease
    exited = running.report(Report("lease_1", LeaseState.EXITED, exit=EXIT), NOW).lease
    found = {
        LeaseState.STARTING: claimed,
        LeaseState.RUNNING: running,
        LeaseState.EXITED: exited,
        LeaseState.CLOSED: exited.close(Closing(Outcome.EXITED), NOW).lease,
    }
    assert found[state].state is state
    return found[state]


ACTIONS = {
    "claim": lambda one: one.claim(1, NOW),
    "running": lambda one: one.report(Report("lease_1", LeaseState.RUNNING), NOW),
    "exited": lambda one: one.report(Report("lease_1", LeaseState.EXITED, exit=EXIT), NOW),
    "complete": lambda one: one.complete(Closing(Outcome.EXITED, exit=EXIT), NOW),
    "lost": lambda one: one.close(Closing(Outcome.NODE_LOST), NOW),
}
UNSTARTABLE = sorted(set(Outcome) - {Outcome.CANCELLED, Outcome.NODE_REFUSED})
LEADS_TO = {
    "claim": LeaseState.STARTING,
    "running": LeaseState.RUNNING,
    "exited": LeaseState.EXITED,
    "complete": LeaseState.CLOSED,
    "lost": LeaseState.CLOSED,
}


@pytest.mark.parametrize(("state", "action"), list(itertools.product(LeaseState, ACTIONS)))
def test_every_state_and_every_action(state: LeaseState, action: str) -> None:
    before, target = lease(state), LEADS_TO[action]
    ended_unstarted = action == "complete" and state is LeaseState.ASSIGNED
    if target in MOVES[state] and not ended_unstarted:
        assert ACTIONS[action](before).lease.state is target
        return
    try:
        moved = ACTIONS[action](before)
    except IllegalMove:
        return
    # A report of what is already known, or of the past, changes nothing.
    assert moved.lease.state is state and not moved.facts


def test_the_moves_are_those_of_the_contract() -> None:
    words = {(source.value, target.value) for source in MOVES for target in MOVES[source]}
    assert words == {
        ("assigned", "starting"),
        ("starting", "running"),
        ("starting", "exited"),
        ("running", "exited"),
        ("exited", "closed"),
        ("assigned", "closed"),
        ("starting", "closed"),
        ("running", "closed"),
    }


def test_a_run_too_short_to_be_seen_is_told_as_started_and_exited() -> None:
    step = Phase("running", "", "info", NOW)
    done = lease(LeaseState.STARTING).complete(
        Closing(Outcome.EXITED, exit=EXIT, phases=(step,)), NOW
    )
    assert [type(fact).__name__ for fact in done.facts] == ["Started", "Exited", "Closed"]
    assert done.facts[0] == Started((step,)) and done.facts[1] == Exited()
    assert (done.lease.started_time, done.lease.exited_time) == (NOW, NOW)


def test_the_first_exit_stands_and_stops_the_meter() -> None:
    before, later = lease(LeaseState.EXITED), NOW + timedelta(hours=1)
    done = before.complete(Closing(Outcome.EXITED, exit=ProcessExit(1)), later).lease
    assert (done.exit, done.exited_time, done.closed_time) == (EXIT, NOW, later)


def test_a_lost_node_is_metered_until_it_was_last_heard_of() -> None:
    running = lease(LeaseState.RUNNING)
    heard, now = NOW + timedelta(seconds=7), NOW + timedelta(seconds=57)
    closed = running.close(Closing(Outcome.NODE_LOST), now, meter_end=heard).lease
    assert closed.exited_time == heard
    early = running.close(Closing(Outcome.NODE_LOST), now, meter_end=NOW - timedelta(days=1))
    assert early.lease.exited_time == NOW
    unclaimed = lease(LeaseState.ASSIGNED).close(Closing(Outcome.NODE_LOST), now).lease
    assert unclaimed.exited_time is None


def test_steps_that_were_told_are_not_told_again() -> None:
    first = Phase("image_download", "10 %", "info", NOW)
    second = replace(first, message="90 %", node_time=NOW + timedelta(seconds=1))
    starting = lease(LeaseState.STARTING)
    told = starting.report(Report("lease_1", LeaseState.STARTING, (first,)), NOW)
    assert told.facts == (Progressed((first,)),)
    again = told.lease.report(Report("lease_1", LeaseState.STARTING, (first, second)), NOW)
    assert again.facts == (Progressed((second,)),)
    running = again.lease.report(Report("lease_1", LeaseState.RUNNING, (first, second)), NOW)
    assert running.facts == (Started(()),)


def test_cancelled_is_the_grids_word() -> None:
    running = lease(LeaseState.RUNNING)
    assert _outcome(running, Outcome.CANCELLED) is Outcome.RUNTIME_LOST
    assert _outcome(lease(LeaseState.ASSIGNED), Outcome.CANCELLED) is Outcome.NODE_REFUSED
    stopped = running.request_stop("user", NOW).lease
    assert stopped.stop and _outcome(stopped, Outcome.CANCELLED) is Outcome.CANCELLED


def _outcome(before: Lease, outcome: Outcome) -> Outcome | None:
    return before.complete(Closing(outcome), NOW).lease.outcome


@pytest.mark.parametrize("outcome", UNSTARTABLE)
def test_nothing_ends_before_its_start(outcome: Outcome) -> None:
    with pytest.raises(IllegalMove):
        lease(LeaseState.ASSIGNED).complete(Closing(outcome, exit=EXIT), NOW)


def test_a_node_cannot_call_itself_lost_nor_exit_without_an_exit() -> None:
    for state in (LeaseState.STARTING, LeaseState.RUNNING):
        with pytest.raises(IllegalMove):
            lease(state).complete(Closing(Outcome.NODE_LOST), NOW)
        with pytest.raises(IllegalMove):
            lease(state).complete(Closing(Outcome.EXITED), NOW)
        with pytest.raises(IllegalMove):
            lease(state).report(Report("lease_1", LeaseState.EXITED), NOW)


def test_an_unstarted_lease_that_is_stopped_is_over_at_once() -> None:
    moved = lease(LeaseState.ASSIGNED).request_stop("user", NOW)
    assert (moved.lease.state, moved.lease.outcome) == (LeaseState.CLOSED, Outcome.CANCELLED)
    assert not moved.lease.request_stop("user", NOW).facts


def test_node_moves() -> None:
    node = Node("node_1", "jgn_x", b"", "ws", "P", "n", "", "", 1, 1, Inventory(), NOW)
    online = node.session_opened(None, False, NOW)
    states = {
        NodeState.ENROLLED: node,
        NodeState.ONLINE: online,
        NodeState.DRAINING: online.drained(True),
        NodeState.OFFLINE: online.lost(NOW),
    }
    for state, one in states.items():
        assert one.state is state
        for after in (one.session_opened(None, True, NOW), one.revoked()):
            assert after is not None and after.state in NODE_MOVES[state] | {state}
            told = after.state is not state
            assert (after.seq, after.version) == (one.seq + told, one.version + 1)
    revoked = online.revoked()
    assert revoked is not None and revoked.revoked() is None
    assert NODE_MOVES[NodeState.REVOKED] == frozenset()
    assert online.drained(False) is online and online.reported(None, False) is online
    assert online.lost(NOW).session_epoch > online.session_epoch
