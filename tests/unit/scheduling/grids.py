"""Small grids and entries for tests of the planner."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from services.scheduling.domain import Entry, Gpu, NodeInfo, Placement, Shape
from services.scheduling.planner import Catalogue, Planner, Rules

CATALOGUE = Catalogue(
    tomllib.loads((Path(__file__).parents[3] / "services/scheduling/catalogue.toml").read_text())
)
GIB = 1 << 30
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = {
    "l4": ("NVIDIA L4", 24),
    "a100": ("NVIDIA A100-SXM4-80GB", 80),
    "a100-40": ("NVIDIA A100-PCIE-40GB", 40),
    "h100": ("NVIDIA H100 80GB HBM3", 80),
    "4090": ("NVIDIA GeForce RTX 4090", 24),
    "mi300": ("AMD Instinct MI300X", 192),
}


def node(name: str, gpu: str = "", gpus: int = 1, **changes: Any) -> NodeInfo:
    """A node with `gpus` of a model, 16 cores, 64 GiB and 500 GiB, in us-east."""
    label, gib = NAMES.get(gpu, ("", 0))
    found = NodeInfo(
        node_id=name,
        open=True,
        region="us-east",
        pool="default",
        runtimes=("docker", "sandbox"),
        gpus=tuple(
            Gpu(place, f"{name}-{place}", label, gib * GIB, "nvidia", False)
            for place in range(gpus if gpu else 0)
        ),
        cpu_millis=16_000,
        memory_bytes=64 * GIB,
        disk_bytes=500 * GIB,
        slots=0,
        gpu_price=1_000_000,
        cpu_price=20_000,
        simulated=False,
    )
    return replace(found, **changes)


def entry(number: int = 1, shape: Shape | None = None, **changes: Any) -> Entry:
    """An entry of workspace ws_1, `number` seconds after the start."""
    found = Entry(
        workspace_id="ws_1",
        job_id=f"job_{number:03d}",
        attempt=1,
        shape=shape or Shape(cpu_millis=1_000),
        tasks=1,
        submitted_time=NOW + timedelta(seconds=number),
        timeout_seconds=3_600,
        reservation_id="res_1",
    )
    return replace(found, **changes)


def planner(*nodes: NodeInfo, rules: Rules | None = None) -> Planner:
    """A planner that knows these nodes."""
    ids = count()
    made = Planner(CATALOGUE, rules or Rules(), lambda: f"alc_{next(ids):05d}")
    for each in nodes:
        made.put_node(each)
    return made


def place(
    made: Planner, *entries: Entry, now: datetime = NOW, limit: int = 1_000
) -> list[Placement]:
    """Queues the entries and plans once."""
    for each in entries:
        made.queue.add(each)
    return made.plan(now, limit)


def where(placed: list[Placement]) -> list[tuple[str, str]]:
    """(job, node of the first task) of each placement."""
    return [(each.entry.job_id, each.holds[0].node_id) for each in placed]
