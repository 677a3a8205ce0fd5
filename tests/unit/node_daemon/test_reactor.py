"""The reactor, as a table: what is held, what is wanted, what is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from junglegrid.nodes.v1.lease_pb2 import PhaseReport

from services.node_daemon.attempts import Lease
from services.node_daemon.domain import (
    Action,
    Claim,
    Desired,
    Held,
    Kill,
    Outcome,
    Refuse,
    Stage,
    Stop,
    Want,
    drains,
    exit_code,
    missing_artifacts,
    on_sync,
    outcome_of_exit,
    outcome_of_failure,
)
from services.node_daemon.runtime.port import ExitReason

A, B = Want("lease_a", "job_1", 1, 0), Want("lease_b", "job_2", 1, 0)
STOP_A = Want("lease_a", "job_1", 1, 0, stop=True, stop_reason="user")


@dataclass(frozen=True)
class Case:
    name: str
    held: tuple[Held, ...]
    wanted: tuple[Want, ...]
    done: list[Action]
    whole: bool = True
    cannot: str = ""
    refused: frozenset[tuple[str, int]] = field(default_factory=frozenset)


def held(stage: Stage = Stage.RUNNING, *, stopping: bool = False) -> Held:
    return Held("lease_a", stage, stopping)


CLOSED = "the grid closed the lease"
CASES = [
    Case("nothing held, nothing wanted", (), (), []),
    Case("a new lease is claimed", (), (A,), [Claim(A)]),
    Case("a held one goes on", (held(),), (A,), []),
    Case("one more is claimed beside it", (held(),), (A, B), [Claim(B)]),
    Case("one that is not wanted is killed", (held(),), (), [Kill("lease_a", CLOSED)]),
    Case("not before the whole is known", (held(),), (), [], whole=False),
    Case("killed while it is claimed", (held(Stage.CLAIMING),), (), [Kill("lease_a", CLOSED)]),
    Case("a stop stops", (held(),), (STOP_A,), [Stop("lease_a", "user")]),
    Case("a stop stops once", (held(stopping=True),), (STOP_A,), []),
    Case("a stop before the start", (held(Stage.STARTING),), (STOP_A,), [Stop("lease_a", "user")]),
    # The grid says whether it was claimed before: then it is abandoned, else revoked.
    Case("a stop of what is not here is asked about", (), (STOP_A,), [Claim(STOP_A)]),
    Case("a full disk refuses the new", (held(),), (A, B), [Refuse(B, "full")], cannot="full"),
    Case("a revoked claim is not asked again", (), (A,), [], refused=frozenset({("lease_a", 7)})),
    Case("but in the next session", (), (A,), [Claim(A)], refused=frozenset({("lease_a", 6)})),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_table(case: Case) -> None:
    desired = Desired({want.lease_id: want for want in case.wanted}, epoch=7)
    done = on_sync(
        {each.lease_id: each for each in case.held},
        desired,
        known_whole=case.whole,
        cannot=case.cannot,
        refused=case.refused,
    )
    assert done == case.done


def test_messages_add_up_and_a_full_one_replaces() -> None:
    first = Desired({}, 1).merged([A], full=True)
    both = first.merged([B], full=False)
    assert set(both.wants) == {"lease_a", "lease_b"}
    assert both.merged([STOP_A], full=False).wants["lease_a"].stop
    assert set(both.merged([B], full=True).wants) == {"lease_b"}
    assert set(both.without("lease_a").wants) == {"lease_b"}


def test_every_exit_has_an_outcome() -> None:
    outcomes = {reason: outcome_of_exit(reason) for reason in ExitReason}
    assert outcomes[ExitReason.EXITED] is outcomes[ExitReason.TIMED_OUT] is Outcome.EXITED
    assert outcomes[ExitReason.LEASE_EXPIRED] is Outcome.RUNTIME_LOST
    assert outcome_of_failure("IMAGE_NOT_FOUND") is Outcome.IMAGE_UNAVAILABLE
    assert outcome_of_failure("INVALID_REQUEST") is Outcome.LAUNCH_INVALID
    assert outcome_of_failure("ANYTHING") is Outcome.RUNTIME_FAILED


def test_exit_codes() -> None:
    assert [exit_code(0, None), exit_code(None, 9), exit_code(None, None)] == [0, 137, 255]


def test_missing_artifacts() -> None:
    expected = ["/workspace/artifacts/a.bin", "artifacts/dir/", "b", "./c", "dir/no"]
    assert missing_artifacts(expected, ["a.bin", "dir/x/y", "c"]) == ["b", "dir/no"]


def test_draining_eases_later_than_it_begins() -> None:
    assert not drains(0.89, draining=False, full_share=0.9)
    assert drains(0.90, draining=False, full_share=0.9)
    assert drains(0.86, draining=True, full_share=0.9)
    assert not drains(0.84, draining=True, full_share=0.9)


def test_a_step_that_came_after_two_reports_of_the_same_steps_is_still_told() -> None:
    lease = Lease(Want("l", "job", 1, 0), cast(Any, None))
    lease.phases += [PhaseReport(phase="runtime_preparation"), PhaseReport(phase="notice")]
    first, second = lease.steps, lease.steps  # two reports are under way at once
    lease.phases.append(PhaseReport(phase="running"))
    lease.told(first)
    lease.told(second)
    assert [step.phase for step in lease.phases] == ["running"]
    lease.told(lease.steps)
    assert not lease.phases
