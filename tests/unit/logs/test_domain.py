"""What a log accepts, and when it is whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.logs.domain import Batch, JobLog, Line, Refusal, Stream

MAX = 1_000_000


def lines(*numbers: int, stream: Stream = Stream.STDOUT) -> list[Line]:
    return [Line(stream, number, f"{stream} {number}") for number in numbers]


def log() -> JobLog:
    return JobLog("ws_1", "job_1")


def accept(
    head: JobLog, *found: Line, attempt: int = 1, **more: object
) -> tuple[JobLog, list[int]]:
    batch = Batch(attempt, 0, list(found), **more)  # type: ignore[arg-type]
    head, accepted = head.accept(batch, bytes_max=MAX)
    return head, [line.seq for line in accepted.lines]


def test_numbers_are_taken_once_and_in_order() -> None:
    head, taken = accept(log(), *lines(1, 2, 3))
    assert taken == [1, 2, 3]
    head, taken = accept(head, *lines(2, 3, 4))
    assert taken == [4]
    assert head.last_entry_id == 4


def test_a_hole_is_not_taken_and_the_node_learns_where_to_go_on() -> None:
    head, accepted = log().accept(Batch(1, 0, lines(1, 3)), bytes_max=MAX)
    assert [line.seq for line in accepted.lines] == [1]
    assert accepted.durable[Stream.STDOUT] == 1
    _, taken = accept(head, *lines(2, 3))
    assert taken == [2, 3]


def test_streams_and_tasks_count_apart() -> None:
    head, _ = accept(log(), *lines(1, 2), *lines(1, stream=Stream.STDERR))
    head, accepted = head.accept(Batch(1, 1, lines(1)), bytes_max=MAX)
    assert [line.seq for line in accepted.lines] == [1]
    assert head.last_entry_id == 4


def test_an_older_attempt_may_not_write_after_a_newer_one() -> None:
    head, _ = accept(log(), *lines(1), attempt=2)
    after, accepted = head.accept(Batch(1, 0, lines(1)), bytes_max=MAX)
    assert accepted.refused is Refusal.STALE_ATTEMPT
    assert after == head


def test_a_sealed_attempt_may_not_write_and_the_next_one_may() -> None:
    head, _ = accept(log(), *lines(1))
    head = head.seal(1, gap=False)
    _, accepted = head.accept(Batch(1, 0, lines(2)), bytes_max=MAX)
    assert accepted.refused is Refusal.SEALED
    _, taken = accept(head, *lines(1), attempt=2)
    assert taken == [1]


def test_complete_when_both_streams_reached_their_end() -> None:
    head, accepted = log().accept(
        Batch(1, 0, lines(1), {Stream.STDOUT: 2, Stream.STDERR: 0}), bytes_max=MAX
    )
    assert not accepted.complete
    _, accepted = head.accept(Batch(1, 0, lines(2)), bytes_max=MAX)
    assert accepted.complete


def test_a_gap_ends_every_stream_where_it_stands() -> None:
    head, _ = accept(log(), *lines(1))
    head, accepted = head.accept(Batch(1, 0, gap=True), bytes_max=MAX)
    assert accepted.complete
    assert head.gap


def test_the_limit_cuts_once_with_a_marker_and_goes_on_acknowledging() -> None:
    head, accepted = log().accept(Batch(1, 0, lines(1, 2, 3)), bytes_max=10)
    assert [line.stream for line in accepted.lines] == [Stream.STDOUT, Stream.SYSTEM]
    assert accepted.durable[Stream.STDOUT] == 3
    head, accepted = head.accept(Batch(1, 0, lines(4)), bytes_max=10)
    assert list(accepted.lines) == []
    assert accepted.durable[Stream.STDOUT] == 4
    assert head.last_entry_id == 2


@pytest.mark.parametrize("order", [("queued", "running"), ("running", "queued")])
def test_status_follows_the_attempt_upwards_in_any_order(order: tuple[str, str]) -> None:
    head = JobLog("ws_1", "job_1", version=1)
    for status in order:
        head = head.observe(1, status)
    assert head.status == "running"
    assert head.observe(2, "queued").status == "queued"


def test_a_final_status_stays() -> None:
    head = log().finish("completed", 0, lease_open=False)
    assert head.closed
    assert head.observe(3, "running") == head
    assert head.finish("failed", 1, lease_open=True) == head


def test_a_cancelled_job_closes_with_its_lease() -> None:
    head, _ = accept(log(), *lines(1))
    head = head.finish("cancelled", None, lease_open=True)
    assert not head.closed
    head, taken = accept(head, *lines(2))
    assert taken == [2]
    assert head.seal(1, gap=False).closed


def test_a_lease_that_closed_before_the_job_ended_leaves_nothing_open() -> None:
    head, _ = accept(log(), *lines(1))
    head = head.seal(1, gap=False).finish("cancelled", None, lease_open=True)
    assert head.closed


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), max_size=30))
def test_whatever_is_sent_again_the_stored_numbers_have_no_hole_and_no_repeat(
    windows: list[tuple[int, int]],
) -> None:
    head, stored = log(), []
    for start, count in windows:
        head, taken = accept(head, *lines(*range(start + 1, start + count + 1)))
        stored += taken
    assert stored == list(range(1, len(stored) + 1))
    assert head.last_entry_id == len(stored)
