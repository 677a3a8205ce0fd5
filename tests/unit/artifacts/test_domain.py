"""States and the fence, pair by pair."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import InvalidRequest
from services.artifacts.domain import (
    Artifact,
    ArtifactState,
    Input,
    InputState,
    JobHead,
    Refusal,
    Stored,
    Usage,
    mounts,
)
from services.artifacts.domain import artifacts as artifact_rules
from services.artifacts.domain import inputs as input_rules
from services.artifacts.domain.inputs import IllegalMove

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STORED = Stored("inputs/ws/inp/x", 4, "tag", "ab" * 32)


def an_input(state: InputState = InputState.PENDING, **values: object) -> Input:
    made = Input(
        "ws", "inp_1", "a.txt", "text/plain", "input", None, b"d", NOW, NOW, NOW, state=state
    )
    return replace(made, **values)  # type: ignore[arg-type]


def an_artifact(state: ArtifactState = ArtifactState.PENDING) -> Artifact:
    sha = "ab" * 32
    return Artifact(
        "ws", "job", "art", 2, 1, "d/f.txt", "text/plain", 4, sha, NOW, NOW, state=state
    )


INPUT_MOVES = {
    InputState.UPLOADED: lambda item: item.complete(STORED, NOW, NOW),
    InputState.EXPIRED: lambda item: item.expire(NOW),
}
ARTIFACT_MOVES = {
    ArtifactState.READY: lambda artifact: artifact.make_ready(NOW),
    ArtifactState.FAILED: lambda artifact: artifact.fail(NOW),
}


@pytest.mark.parametrize(("before", "after"), [*itertools.product(InputState, INPUT_MOVES)])
def test_every_pair_of_input_states(before: InputState, after: InputState) -> None:
    if after in input_rules.MOVES[before]:
        assert INPUT_MOVES[after](an_input(before)).state is after
    else:
        with pytest.raises(IllegalMove):
            INPUT_MOVES[after](an_input(before))


@pytest.mark.parametrize(("before", "after"), [*itertools.product(ArtifactState, ARTIFACT_MOVES)])
def test_every_pair_of_artifact_states(before: ArtifactState, after: ArtifactState) -> None:
    if after in artifact_rules.MOVES[before]:
        assert ARTIFACT_MOVES[after](an_artifact(before)).state is after
    else:
        with pytest.raises(IllegalMove):
            ARTIFACT_MOVES[after](an_artifact(before))


def test_nothing_moves_back_to_pending() -> None:
    assert all(InputState.PENDING not in to for to in input_rules.MOVES.values())
    assert all(ArtifactState.PENDING not in to for to in artifact_rules.MOVES.values())


def test_only_a_pending_artifact_is_announced_anew() -> None:
    assert an_artifact().announce(9, "cd" * 32).size_bytes == 9
    for state in (ArtifactState.READY, ArtifactState.FAILED):
        with pytest.raises(IllegalMove):
            an_artifact(state).announce(9, "cd" * 32)


def test_keys_say_whose_they_are() -> None:
    artifact = an_artifact()
    assert artifact.final_key == f"artifacts/ws/job/2.1.art.{'ab' * 32}"
    assert artifact.final_key.startswith(artifact.final_prefix)
    assert artifact.staging_key == "staging/artifact.ws.job.2.1.art"
    assert artifact.announce(4, "cd" * 32).final_key != artifact.final_key
    assert an_input().staging_key == "staging/input.ws.inp_1"
    assert an_input().final_key("x") != an_input().final_key("y")


def test_mount_path_follows_the_kind() -> None:
    assert an_input().mount_path == "/workspace/inputs/a.txt"
    assert an_input(kind="script").mount_path == "/workspace/scripts/a.txt"
    assert an_input(kind="dataset").mount_path == "/workspace/inputs/a.txt"


def ready(input_id: str, name: str, kind: str = "input") -> Input:
    return an_input(InputState.UPLOADED, input_id=input_id, filename=name, kind=kind, stored=STORED)


def test_mounts_come_in_the_order_sent() -> None:
    script = ready("s", "run.py", "script")
    found = mounts([ready("b", "b"), ready("a", "a")], [script])
    assert [mount.input_id for mount in found] == ["b", "a", "s"]
    assert found[2].mount_path == "/workspace/scripts/run.py"


@pytest.mark.parametrize(
    ("inputs", "scripts"),
    [
        ([ready("a", "x"), ready("b", "x")], []),
        ([ready("a", "x"), ready("a", "x")], []),
        ([], [ready("a", "x", "script"), ready("b", "y", "script")]),
        ([], [ready("a", "x", "input")]),
        ([ready("a", "x", "script")], [ready("a", "x", "script")]),
    ],
)
def test_what_cannot_be_mounted_together(inputs: list[Input], scripts: list[Input]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        mounts(inputs, scripts)
    assert refused.value.reason == "INVALID_REQUEST"


def test_usage_adds_up() -> None:
    item = an_input(declared_bytes=10)
    usage = Usage().add(item)
    assert (usage.inputs, usage.pending, usage.size_bytes) == (1, 1, 10)
    done = item.complete(STORED, NOW, NOW)
    usage = usage.change(item, done)
    assert (usage.inputs, usage.pending, usage.size_bytes) == (1, 0, 4)
    usage = usage.change(done, done.expire(NOW))
    assert (usage.inputs, usage.pending, usage.size_bytes) == (0, 0, 0)
    gone = Usage().add(item).change(item, item.expire(NOW))
    assert (gone.inputs, gone.pending, gone.size_bytes) == (0, 0, 0)


def test_fence_lets_the_newest_attempt_write() -> None:
    head = JobHead("ws", "job").begin(2)
    assert head.refusal(1, 0) is Refusal.STALE_ATTEMPT
    assert head.refusal(2, 0) is None
    # A grant may be ahead of the facts: it proves that the attempt exists.
    assert head.refusal(3, 0) is None


def test_closed_lease_seals_its_task_alone() -> None:
    head = JobHead("ws", "job").seal_task(1, 0)
    assert head.refusal(1, 0) is Refusal.SEALED
    assert head.refusal(1, 1) is None
    assert head.begin(2).refusal(2, 0) is None


def test_final_job_seals_unless_a_lease_is_open() -> None:
    due = NOW + timedelta(days=30)
    head = JobHead("ws", "job").begin(1)
    assert head.finish(1, due, lease_open=False).refusal(1, 0) is Refusal.SEALED
    open_head = head.finish(1, due, lease_open=True)
    assert open_head.refusal(1, 0) is None
    assert open_head.seal_task(1, 0).refusal(1, 0) is Refusal.SEALED
    assert head.finish(1, due, lease_open=False).finish(1, NOW, lease_open=False).due_time == due


FACTS = st.one_of(
    st.tuples(st.just("begin"), st.integers(1, 4)),
    st.tuples(st.just("seal"), st.integers(1, 4)),
    st.tuples(st.just("finish"), st.integers(0, 4)),
    st.tuples(st.just("tear down"), st.integers(0, 4)),
)


def applied(head: JobHead, fact: tuple[str, int]) -> JobHead:
    kind, attempt = fact
    if kind == "begin":
        return head.begin(attempt)
    if kind == "seal":
        return head.seal_task(attempt, 0)
    return head.finish(attempt, NOW, lease_open=kind == "tear down")


@given(st.lists(FACTS, max_size=12))
def test_once_refused_always_refused(facts: list[tuple[str, int]]) -> None:
    head = JobHead("ws", "job")
    refused: set[int] = set()
    for fact in facts:
        head = applied(head, fact)
        now = {attempt for attempt in range(1, 6) if head.refusal(attempt, 0) is not None}
        assert refused <= now
        refused = now
        assert applied(head, fact) == head, "a fact that is heard twice changes nothing"
