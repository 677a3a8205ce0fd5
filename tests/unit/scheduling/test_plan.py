"""Order, fairness, big jobs among small ones, gangs, and what holds for every plan."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduling.domain import Hold, NodeInfo, Shape
from services.scheduling.planner import Planner, Rules
from tests.unit.scheduling.grids import GIB, NOW, entry, node, place, planner, where

CPU = Shape(cpu_millis=16_000)


def gpu(count: int = 1, **changes: Any) -> Shape:
    return Shape(cpu_millis=1_000, gpu_count=count, **changes)


def end(made: Planner, job_id: str) -> None:
    """The leases of a job have closed."""
    for hold in [each for each in made.grid.holds.values() if each.job_id == job_id]:
        made.free(hold.allocation_id)


def test_first_come_first_served_within_a_workspace() -> None:
    made = planner(node("a"))
    placed = place(made, entry(3, CPU), entry(1, CPU), entry(2, CPU))
    assert where(placed) == [("job_001", "a")]
    end(made, "job_001")
    assert where(made.plan(NOW, 9)) == [("job_002", "a")]


def test_the_workspace_that_has_least_comes_first() -> None:
    made = planner(*(node(f"n{number}") for number in range(4)))
    many = [entry(number, CPU, workspace_id="ws_many") for number in range(1, 9)]
    few = [entry(number, CPU, workspace_id="ws_few") for number in range(20, 22)]
    placed = place(made, *many, *few)
    names = [each.entry.workspace_id for each in placed]
    assert names == ["ws_many", "ws_few", "ws_many", "ws_few"]


def test_what_is_held_already_counts() -> None:
    made = planner(node("a"), node("b"))
    place(made, entry(1, CPU, workspace_id="ws_busy"))
    placed = place(
        made, entry(2, CPU, workspace_id="ws_busy"), entry(3, CPU, workspace_id="ws_new")
    )
    assert where(placed) == [("job_003", "b")]


def test_a_big_job_blocks_nobody() -> None:
    made = planner(node("a", "l4", 2))
    place(made, entry(1, gpu(1)))
    placed = place(made, entry(2, gpu(2)), entry(3, gpu(1)))
    assert where(placed) == [("job_003", "a")]


def test_small_work_does_not_starve_a_big_job() -> None:
    made = planner(node("a", "l4", 4), node("b", "l4", 4), rules=Rules(aging_seconds=60))
    place(made, *(entry(number, gpu(1)) for number in range(1, 9)))
    big = entry(50, gpu(4))
    assert not place(made, big)
    later = big.submitted_time + timedelta(seconds=61)
    made.age(later)
    assert len(made.grid.kept) == 1
    [kept] = made.grid.kept
    running = sorted(made.grid.holds.values(), key=lambda hold: (hold.node_id != kept, hold.job_id))
    started = False
    for number, hold in enumerate(running):
        made.free(hold.allocation_id)
        placed = place(made, entry(100 + number, gpu(1)), now=later)
        started = started or any(each.entry is big for each in placed)
        small = [each for each in placed if each.entry is not big]
        assert started or all(each.holds[0].node_id != kept for each in small)
    assert started
    assert not made.grid.kept, "the node is for everyone again"


def test_short_work_may_use_a_kept_node_until_it_is_needed() -> None:
    made = planner(node("a", "l4", 2), rules=Rules(aging_seconds=60))
    place(made, entry(1, gpu(1), timeout_seconds=1_000))
    place(made, entry(2, gpu(2)))
    later = NOW + timedelta(seconds=100)
    made.age(later)
    assert made.grid.kept == {"a": "job_002"}
    long = place(made, entry(3, gpu(1), timeout_seconds=901), now=later)
    short = place(made, entry(4, gpu(1, disk_bytes=1), timeout_seconds=900), now=later)
    assert (where(long), where(short)) == ([], [("job_004", "a")])


def test_nodes_are_not_kept_for_a_job_that_is_gone() -> None:
    made = planner(node("a", "l4", 2), rules=Rules(aging_seconds=1))
    place(made, entry(1, gpu(1)))
    place(made, entry(2, gpu(2)))
    made.age(NOW + timedelta(seconds=100))
    assert made.grid.kept
    made.drop("job_002")
    assert not made.grid.kept
    assert where(place(made, entry(3, gpu(1)))) == [("job_003", "a")]


def test_a_node_that_failed_lately_is_chosen_last() -> None:
    made = planner(node("a"), node("b"), rules=Rules(suspect_seconds=60))
    made.suspect("a", NOW)
    assert where(place(made, entry(1, CPU))) == [("job_001", "b")]
    assert where(place(made, entry(2, CPU))) == [("job_002", "a")], "rather than none"
    end(made, "job_001")
    end(made, "job_002")
    later = NOW + timedelta(seconds=61)
    assert where(place(made, entry(3, CPU), now=later)) == [("job_003", "a")]


def test_a_gang_takes_all_or_nothing() -> None:
    made = planner(node("a", "l4", 4), node("b", "l4", 4))
    assert not place(made, entry(1, gpu(3), tasks=3))
    assert not made.grid.holds
    [placed] = place(made, entry(2, gpu(2), tasks=4))
    assert [hold.task_index for hold in placed.holds] == [0, 1, 2, 3]
    assert len({uuid for hold in placed.holds for uuid in hold.gpu_uuids}) == 8


def test_a_later_attempt_replaces_the_former() -> None:
    made = planner()
    place(made, entry(1))
    place(made, entry(1, attempt=2))
    place(made, entry(1, attempt=1))
    assert [each.attempt for each in made.queue.entries.values()] == [2]
    made.put_node(node("a"))
    assert [each.entry.attempt for each in made.plan(NOW, 9)] == [2]


def test_a_dropped_entry_is_not_placed() -> None:
    made = planner()
    place(made, entry(1), entry(2))
    made.queue.drop("job_001")
    made.put_node(node("a"))
    assert where(made.plan(NOW, 9)) == [("job_002", "a")]


def test_a_closed_node_takes_nothing_and_keeps_its_holds() -> None:
    made = planner(node("a", "l4", 2))
    place(made, entry(1, gpu(1)))
    made.put_node(node("a", "l4", 2, open=False))
    assert not place(made, entry(2, gpu(1)))
    made.put_node(node("a", "l4", 2))
    assert where(made.plan(NOW, 9)) == [("job_002", "a")]
    assert len(made.grid.holds) == 2


def test_a_gpu_that_left_is_not_given() -> None:
    made = planner(node("a", "l4", 2))
    place(made, entry(1, gpu(1)))
    made.put_node(node("a", "l4", 1))
    assert not place(made, entry(2, gpu(1)))


def test_undo_gives_everything_back() -> None:
    made = planner(node("a", "l4", 2))
    [placed] = place(made, entry(1, gpu(2)))
    made.undo(placed)
    made.queue.add(placed.entry)
    assert where(made.plan(NOW, 9)) == [("job_001", "a")]


NODES = st.builds(
    lambda number, model, gpus, region, slots, price: node(
        f"n{number}", model, gpus, region=region, slots=slots, gpu_price=price
    ),
    st.integers(0, 12),
    st.sampled_from(["", "l4", "a100", "h100"]),
    st.integers(1, 8),
    st.sampled_from(["us-east", "eu-west"]),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([500_000, 1_000_000]),
)
SHAPES = st.builds(
    Shape,
    cpu_millis=st.sampled_from([0, 500, 4_000, 16_000]),
    memory_bytes=st.sampled_from([0, GIB, 40 * GIB]),
    gpu_count=st.integers(0, 4),
    gpu_memory_min=st.sampled_from([0, 40 * GIB]),
    region=st.sampled_from(["", "eu-west"]),
    region_strict=st.booleans(),
    price_max=st.sampled_from([0, 1_500_000]),
)
ENTRIES = st.lists(st.tuples(SHAPES, st.integers(1, 3), st.integers(1, 3)), max_size=25)


def entries(drawn: list[tuple[Shape, int, int]]) -> list[Any]:
    return [
        entry(number, shape, tasks=tasks, workspace_id=f"ws_{workspace}")
        for number, (shape, tasks, workspace) in enumerate(drawn)
    ]


def within(made: Planner, nodes: dict[str, NodeInfo]) -> None:
    """I12: no node gives more than it has, and no GPU twice."""
    by_node: dict[str, list[Hold]] = {}
    for hold in made.grid.holds.values():
        by_node.setdefault(hold.node_id, []).append(hold)
    for node_id, holds in by_node.items():
        info = nodes[node_id]
        assert sum(hold.cpu_millis for hold in holds) <= info.cpu_millis
        assert sum(hold.memory_bytes for hold in holds) <= info.memory_bytes
        assert not info.slots or len(holds) <= info.slots
        uuids = [uuid for hold in holds for uuid in hold.gpu_uuids]
        assert len(uuids) == len(set(uuids))
        assert set(uuids) <= {gpu.uuid for gpu in info.gpus}


@settings(max_examples=150, deadline=None)
@given(st.lists(NODES, max_size=12), ENTRIES, st.lists(st.integers(0, 40), max_size=40))
def test_never_more_than_there_is(
    nodes: list[NodeInfo], drawn: list[tuple[Shape, int, int]], ends: list[int]
) -> None:
    by_name = {each.node_id: each for each in nodes}
    made = planner(*by_name.values(), rules=Rules(aging_seconds=1))
    waiting = entries(drawn)
    place(made, *waiting)
    within(made, by_name)
    for number in ends:
        held = sorted(made.grid.holds)
        if held:
            end(made, made.grid.holds[held[number % len(held)]].job_id)
        made.age(NOW + timedelta(seconds=1_000 + number))
        made.plan(NOW + timedelta(seconds=1_000 + number), 5)
        within(made, by_name)
    for hold in list(made.grid.holds.values()):
        made.free(hold.allocation_id)
    fresh = planner(*by_name.values())
    for each in made.grid.nodes.values():
        other = fresh.grid.nodes[each.node_id]
        assert (each.level, each.key) == (other.level, other.key)


@settings(max_examples=100, deadline=None)
@given(st.lists(NODES, max_size=12), ENTRIES)
def test_the_same_grid_gives_the_same_plan(
    nodes: list[NodeInfo], drawn: list[tuple[Shape, int, int]]
) -> None:
    by_name = {each.node_id: each for each in nodes}
    waiting = entries(drawn)
    first = place(planner(*by_name.values()), *waiting)
    second = place(planner(*reversed(by_name.values())), *reversed(waiting))
    assert where(first) == where(second)


@settings(max_examples=100, deadline=None)
@given(st.lists(NODES, min_size=1, max_size=8), ENTRIES, SHAPES)
def test_what_waits_does_not_fit(
    nodes: list[NodeInfo], drawn: list[tuple[Shape, int, int]], shape: Shape
) -> None:
    """Work-conserving and monotone: nothing that waits fits, and an emptier grid fits no less."""
    by_name = {each.node_id: each for each in nodes}
    made = planner(*by_name.values())
    place(made, *entries(drawn))
    for each in made.queue.entries.values():
        assert made.fits_now(each.shape, each.tasks, NOW) is None
    busy = made.fits_now(shape, 1, NOW)
    empty = planner(*by_name.values()).fits_now(shape, 1, NOW)
    assert busy is None or empty is not None
