"""Speed of the planner alone (P7): `python -m tests.bench.planner [nodes]`.

Prints placements a CPU second on a grid of GPU and CPU nodes of mixed kinds, prices, regions and
constraints, the times of single decisions, a gang of 64 x 8 GPUs, and a cycle with many waiting.
"""

from __future__ import annotations

import random
import sys
import time
import tomllib
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from services.scheduling.domain import Entry, Gpu, Mode, NodeInfo, Placement, Shape
from services.scheduling.planner import Catalogue, Planner, Rules

CATALOGUE = Path(__file__).parents[2] / "services/scheduling/catalogue.toml"
GIB = 1 << 30
NOW = datetime(2026, 1, 1, tzinfo=UTC)
REGIONS = ("us-east", "us-west", "eu-west", "ap-south")
# Name, memory in GiB, GPUs a node, price per GPU in micro-USD.
MODELS = (
    ("NVIDIA L4", 24, 1, 700_000),
    ("NVIDIA L4", 24, 4, 650_000),
    ("NVIDIA A100-SXM4-80GB", 80, 8, 1_900_000),
    ("NVIDIA H100 80GB HBM3", 80, 8, 2_800_000),
    ("NVIDIA GeForce RTX 4090", 24, 2, 450_000),
    ("AMD Instinct MI300X", 192, 8, 3_000_000),
)
PLACEMENTS_GOAL = 30_000
DECISION_GOAL_MS = 1.0
GANG_GOAL_MS = 20.0


def node(number: int, chance: random.Random) -> NodeInfo:
    name, gib, count_, price = MODELS[number % len(MODELS)]
    gpus = 0 if number % 10 == 9 else count_
    return NodeInfo(
        node_id=f"node_{number:06d}",
        open=True,
        region=chance.choice(REGIONS),
        pool="default",
        runtimes=("docker", "sandbox"),
        gpus=tuple(
            Gpu(place, f"gpu_{number}_{place}", name, gib * GIB, "nvidia", False)
            for place in range(gpus)
        ),
        cpu_millis=max(gpus, 1) * 16_000,
        memory_bytes=max(gpus, 1) * 128 * GIB,
        disk_bytes=2_000 * GIB,
        slots=64,
        gpu_price=price + 50_000 * chance.randrange(4),
        cpu_price=20_000,
        simulated=False,
    )


def shape(chance: random.Random) -> Shape:
    gpus = chance.choice((0, 1, 1, 1, 1, 2, 4, 8))
    return Shape(
        cpu_millis=max(gpus, 1) * chance.choice((1_000, 2_000, 4_000)),
        memory_bytes=max(gpus, 1) * chance.choice((4, 8, 16)) * GIB,
        disk_bytes=chance.choice((10, 50)) * GIB,
        gpu_count=gpus,
        gpu_memory_min=chance.choice((8, 16, 24, 40)) * GIB if gpus else 0,
        gpu_class=chance.choice(("", "", "datacenter")) if gpus else "",
        region=chance.choice(("", *REGIONS)),
        region_strict=chance.random() < 0.2,
        price_max=gpus * chance.choice((0, 2_000_000, 3_500_000)),
        preferred_family=chance.choice(("", "", "l4", "a100")),
        avoid_families=chance.choice(((), (), ("h100",))),
        mode=chance.choice(tuple(Mode)),
    )


def entry(number: int, wanted: Shape, tasks: int = 1) -> Entry:
    return Entry(
        workspace_id=f"ws_{number % 50}",
        job_id=f"job_{number:07d}",
        attempt=1,
        shape=wanted,
        tasks=tasks,
        submitted_time=NOW + timedelta(milliseconds=number),
        timeout_seconds=3_600,
        reservation_id="res",
    )


def planner(nodes: int, chance: random.Random) -> Planner:
    ids = count()
    made = Planner(
        Catalogue(tomllib.loads(CATALOGUE.read_text())), Rules(), lambda: f"alc_{next(ids)}"
    )
    for number in range(nodes):
        made.put_node(node(number, chance))
    return made


def drain(made: Planner, batch: int = 64) -> list[Placement]:
    placed: list[Placement] = []
    while found := made.plan(NOW, batch):
        placed += found
    return placed


def free(made: Planner, placed: list[Placement]) -> None:
    for placement in placed:
        for hold in placement.holds:
            made.free(hold.allocation_id)


def fill(made: Planner, shapes: list[Shape], jobs: int) -> tuple[float, list[Placement]]:
    """CPU seconds to queue and place `jobs` entries in batches, and the placements."""
    begun = time.process_time()
    placed: list[Placement] = []
    for start in range(0, jobs, 64):
        for number in range(start, min(start + 64, jobs)):
            made.queue.add(entry(number, shapes[number % len(shapes)]))
        placed += drain(made)
    return time.process_time() - begun, placed


def decisions(made: Planner, shapes: list[Shape], jobs: int) -> list[float]:
    """Milliseconds of each single decision, sorted, on a grid that is in use."""
    found = []
    for number in range(jobs):
        made.queue.add(entry(10_000_000 + number, shapes[number % len(shapes)]))
        begun = time.perf_counter()
        made.plan(NOW, 1)
        found.append((time.perf_counter() - begun) * 1_000)
    return sorted(found)


def gang(made: Planner) -> float:
    """Milliseconds to place 64 tasks of 8 GPUs each, all or nothing."""
    wanted = Shape(cpu_millis=8_000, memory_bytes=64 * GIB, gpu_count=8)
    made.queue.add(entry(20_000_000, wanted, tasks=64))
    begun = time.perf_counter()
    placed = made.plan(NOW, 1)
    assert placed and len(placed[0].holds) == 64
    return (time.perf_counter() - begun) * 1_000


def waiting_cycle(made: Planner, waiting: int) -> float:
    """Milliseconds for one change while many entries wait that fit nowhere."""
    for number in range(waiting):
        impossible = Shape(gpu_count=8, gpu_memory_min=300 * GIB, cpu_millis=number % 40)
        made.queue.add(entry(30_000_000 + number, impossible))
    drain(made)
    made.queue.add(entry(40_000_000, Shape(cpu_millis=100)))
    begun = time.perf_counter()
    placed = drain(made)
    made.free(placed[0].holds[0].allocation_id)
    drain(made)
    return (time.perf_counter() - begun) * 1_000


def main(nodes: int = 10_000) -> None:
    """Prints all figures."""
    chance = random.Random(7)
    made = planner(nodes, chance)
    shapes = [shape(chance) for _ in range(200)]
    jobs = nodes
    begun = time.perf_counter()
    fill(made, shapes, len(shapes))
    first = (time.perf_counter() - begun) * 1_000 / len(shapes)
    seconds, placed = fill(made, shapes, jobs)
    rate = len(placed) / seconds
    print(f"{nodes} nodes of {len(made.grid.kinds)} kinds, {len(shapes)} shapes")
    print(f"first of a new shape, ms {first:>8.3f}   it is matched with every kind, once")
    print(
        f"placements a CPU s    {rate:>10,.0f}   goal {PLACEMENTS_GOAL:,}  ({len(placed)} placed)"
    )
    times = decisions(made, shapes, 5_000)
    print(
        f"one decision, ms      p50 {times[2_500]:.3f}  p99 {times[4_950]:.3f}  "
        f"max {times[-1]:.3f}   goal p99 {DECISION_GOAL_MS}"
    )
    free(made, placed)
    fresh = planner(nodes, random.Random(7))
    print(f"gang of 64 x 8, ms    {gang(fresh):>10.2f}   goal {GANG_GOAL_MS}")
    for waiting in (100, 10_000):
        print(f"a change, {waiting:>6} waiting, ms  {waiting_cycle(fresh, waiting):>8.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
