"""Which node fits, which is chosen, and why none does."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduling.domain import Gpu, Mode, NodeInfo, Shape, mode_of
from services.scheduling.planner import explain, quote
from services.scheduling.planner.quote import Terms
from tests.unit.scheduling.grids import CATALOGUE, GIB, NOW, entry, node, place, planner, where

TERMS = Terms(300.0, 5.0, {Mode.COST: 1.2, Mode.BALANCED: 1.5, Mode.SPEED: 3.0})


def gpu(count: int = 1, **changes: Any) -> Shape:
    return Shape(cpu_millis=1_000, gpu_count=count, **changes)


@pytest.mark.parametrize(
    ("name", "gib", "model", "gpu_class", "tier"),
    [
        ("NVIDIA L4", 22.5, "l4", "datacenter", "mid"),
        ("NVIDIA L40S", 45, "l40s", "datacenter", "high"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "a100-80gb", "datacenter", "extreme"),
        ("NVIDIA A100-PCIE-40GB", 39.4, "a100-40gb", "datacenter", "high"),
        ("NVIDIA GH200 480GB", 95, "gh200", "datacenter", "extreme"),
        ("NVIDIA GeForce RTX 4090", 24, "rtx-4090", "consumer", "mid"),
        ("NVIDIA RTX 6000 Ada Generation", 47, "rtx-6000-ada", "datacenter", "high"),
        ("Tesla T4", 15, "t4", "datacenter", "entry"),
        ("AMD Instinct MI250X", 128, "mi250x", "datacenter", "extreme"),
        ("L4 (simulated)", 24, "l4", "datacenter", "mid"),
        ("NVIDIA T400 4GB", 4, "nvidia-t400-4gb", "", "entry"),
    ],
)
def test_cards_are_known_by_the_name_their_driver_gives(
    name: str, gib: float, model: str, gpu_class: str, tier: str
) -> None:
    found = CATALOGUE.identify(Gpu(0, "u", name, int(gib * GIB), "nvidia", False))
    assert (found.gpu_type, found.gpu_class, found.tier) == (model, gpu_class, tier)


NODES = [
    node("cpu"),
    node("l4", "l4", gpu_price=700_000, region="eu-west"),
    node("l4x4", "l4", 4, gpu_price=650_000),
    node("a100x8", "a100", 8, gpu_price=1_900_000),
    node("h100", "h100", gpu_price=2_800_000),
    node("rtx", "4090", gpu_price=450_000),
    node("mi", "mi300", gpu_price=3_000_000),
]


@pytest.mark.parametrize(
    ("shape", "chosen"),
    [
        (Shape(cpu_millis=4_000), "cpu"),
        (gpu(mode=Mode.COST), "rtx"),
        (gpu(mode=Mode.SPEED), "mi"),
        (gpu(mode=Mode.COST, gpu_class="datacenter"), "l4x4"),
        (gpu(mode=Mode.COST, gpu_type="l4", region="eu-west"), "l4"),
        (gpu(mode=Mode.COST, gpu_memory_min=40 * GIB), "a100x8"),
        (gpu(mode=Mode.COST, gpu_type="a100"), "a100x8"),
        (gpu(mode=Mode.COST, gpu_type="h100"), "h100"),
        (gpu(mode=Mode.COST, vendor="amd"), "mi"),
        (gpu(2, mode=Mode.COST), "l4x4"),
        (gpu(5), "a100x8"),
        (gpu(mode=Mode.COST, preferred_family="h100"), "h100"),
        (gpu(mode=Mode.COST, avoid_families=("rtx-4090", "l4")), "a100x8"),
        (gpu(mode=Mode.COST, region="eu-west"), "l4"),
        (gpu(mode=Mode.SPEED, price_max=1_000_000), "rtx"),
        (gpu(mode=Mode.COST, gpu_memory_min=24 * GIB, gpu_type="l4"), "l4x4"),
        (gpu(9), None),
        (gpu(gpu_type="b200"), None),
        (gpu(gpu_memory_min=200 * GIB), None),
        (Shape(cpu_millis=16_001), None),
        (Shape(cpu_millis=1, pool="other"), None),
        (Shape(cpu_millis=1, runtime="simulated"), None),
        (Shape(cpu_millis=1, region="ap", region_strict=True), None),
    ],
)
def test_the_best_node_is_chosen(shape: Shape, chosen: str | None) -> None:
    placed = place(planner(*NODES), entry(shape=shape))
    assert [node_id for _, node_id in where(placed)] == ([chosen] if chosen else [])


def test_one_kind_packs_the_fullest_node_first() -> None:
    made = planner(*(node(name, "l4", 4) for name in "abc"))
    assert where(place(made, entry(1, gpu(3)))) == [("job_001", "a")]
    assert where(place(made, entry(2, gpu(2)))) == [("job_002", "b")]
    assert where(place(made, entry(3, gpu(1)))) == [("job_003", "a")]
    assert where(place(made, entry(4, gpu(2)))) == [("job_004", "b")]
    assert where(place(made, entry(5, gpu(4)))) == [("job_005", "c")]


def test_gpus_of_a_node_are_given_once() -> None:
    made = planner(node("a", "l4", 4))
    placed = place(made, *(entry(number, gpu(2)) for number in range(3)))
    given = [uuid for each in placed for uuid in each.holds[0].gpu_uuids]
    assert sorted(given) == ["a-0", "a-1", "a-2", "a-3"]


def test_a_node_with_unlike_gpus_gives_those_that_match() -> None:
    mixed = node("a", "l4", 2)
    big = node("b", "a100", 2)
    made = planner(NodeInfo(**{**_fields(mixed), "gpus": (*mixed.gpus, *big.gpus)}))
    [placed] = place(made, entry(1, gpu(2, gpu_memory_min=80 * GIB)))
    assert placed.holds[0].gpu_uuids == ("b-0", "b-1")
    assert not place(made, entry(2, gpu(1, gpu_memory_min=80 * GIB)))
    assert len(place(made, entry(3, gpu(2)))) == 1


def _fields(found: NodeInfo) -> dict[str, Any]:
    return {name: getattr(found, name) for name in NodeInfo.__slots__}


def test_nodes_that_lost_the_job_are_chosen_last() -> None:
    made = planner(node("a"), node("b"))
    assert where(place(made, entry(1, avoid=frozenset({"a"})))) == [("job_001", "b")]
    only = planner(node("a"))
    assert where(place(only, entry(1, avoid=frozenset({"a"})))) == [("job_001", "a")]


def test_slots_limit_a_node() -> None:
    made = planner(node("a", slots=2))
    assert len(place(made, *(entry(number) for number in range(5)))) == 2


def test_dropped_wishes_are_named() -> None:
    made = planner(node("a", "l4"))
    shape = gpu(region="eu-west", preferred_family="h100", avoid_families=("l4",))
    [placed] = place(made, entry(1, shape))
    assert placed.relaxed == (
        "avoid_gpu_families",
        "region_preference",
        "preferred_gpu_family",
    )


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        (gpu(9, gpu_type="a100"), "GPU_COUNT_TOO_LARGE"),
        (gpu(gpu_type="b200"), "GPU_TYPE_UNAVAILABLE"),
        (gpu(gpu_memory_min=200 * GIB), "GPU_MEMORY_TOO_LARGE"),
        (Shape(cpu_millis=16_001), "CPU_TOO_LARGE"),
        (Shape(memory_bytes=65 * GIB), "MEMORY_TOO_LARGE"),
        (Shape(disk_bytes=501 * GIB), "DISK_TOO_LARGE"),
        (Shape(pool="other"), "NO_NODES_ONLINE"),
        (Shape(region="ap", region_strict=True), "REGION_UNAVAILABLE"),
        (gpu(price_max=1), "PRICE_TOO_LOW"),
    ],
)
def test_what_fits_nowhere_says_why(shape: Shape, code: str) -> None:
    made = planner(*NODES)
    found = quote(made, shape, 1, NOW, TERMS)
    assert (found.candidates, found.unavailable_code) == (0, code)
    assert found.unavailable_reason
    place(made, entry(1, shape))
    assert explain(made, made.queue.entries["job_001"]).code == code


def test_no_nodes_at_all() -> None:
    found = quote(planner(), gpu(), 1, NOW, TERMS)
    assert found.unavailable_code == "NO_NODES_ONLINE"
    assert found.price > 0, "a listed GPU has a typical price"


def test_a_quote_holds_nothing_and_names_price_place_and_ceiling() -> None:
    made = planner(*NODES)
    found = quote(made, gpu(mode=Mode.COST), 1, NOW, TERMS)
    assert (found.candidates, found.immediate) == (6, True)
    assert (found.price, found.price_min, found.price_max) == (450_000, 450_000, 3_000_000)
    assert found.ceiling == 540_000
    assert (found.gpu_family, found.tier, found.region) == ("rtx-4090", "mid", "us-east")
    assert (found.wait_seconds_min, found.wait_seconds_max) == (0, 5)
    assert not made.grid.holds
    limited = quote(made, gpu(mode=Mode.COST, price_max=700_000), 1, NOW, TERMS)
    assert (limited.ceiling, limited.price_max) == (700_000, 700_000)


def test_a_wait_grows_with_what_is_before_it() -> None:
    made = planner(node("a", "l4"))
    place(made, entry(1, gpu()))
    first = quote(made, gpu(), 1, NOW, TERMS)
    assert (first.immediate, first.wait_seconds_min, first.wait_seconds_max) == (False, 150, 605)
    place(made, entry(2, gpu()), entry(3, gpu()))
    later = quote(made, gpu(), 1, NOW, TERMS)
    assert later.queue_depth == 2
    assert later.wait_seconds_min == 450


def test_explain_counts_those_before() -> None:
    made = planner(node("a", "l4"))
    place(made, *(entry(number, gpu()) for number in range(1, 4)))
    found = explain(made, made.queue.entries["job_003"])
    assert (found.queued, found.position, found.code) == (True, 1, "NODES_BUSY")
    assert not explain(made, None).queued


def test_work_without_gpu_stays_off_gpu_nodes() -> None:
    made = planner(node("a", "l4", cpu_price=1), node("b", cpu_price=50_000))
    assert where(place(made, entry(1, Shape(cpu_millis=1_000, mode=Mode.COST)))) == [
        ("job_001", "b")
    ]


@pytest.mark.parametrize(
    ("wishes", "mode"),
    [
        (("cost", "low_latency", "high", "low"), Mode.COST),
        (("speed", "", "", ""), Mode.SPEED),
        (("", "low_cost", "high", ""), Mode.COST),
        (("", "low_latency", "", ""), Mode.SPEED),
        (("balanced", "", "high", "low"), Mode.SPEED),
        (("", "high_reliability", "", "high"), Mode.COST),
        (("", "", "high", "high"), Mode.BALANCED),
        (("", "", "", ""), Mode.BALANCED),
    ],
)
def test_mode_from_wishes(wishes: tuple[str, str, str, str], mode: Mode) -> None:
    assert mode_of(*wishes) is mode
