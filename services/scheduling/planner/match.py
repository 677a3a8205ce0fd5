"""Which kinds of node fit a shape, at what price and in what order; or why not.

A kind is a set of nodes that are equal in everything but what is free. Whether work could ever run
on a node, what it costs there and how well it suits depends on the kind alone, so it is worked out
once per pair of shape and kind.

Order of the kinds that fit, first the more important:
  1. families to avoid last, the wished region first, the wished family first (wishes)
  2. work without a GPU stays off GPU nodes
  3. the score: weights of price and speed by mode, both on a logarithmic scale
  4. price, then the kind's own fields, so that the order is total
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from services.scheduling.domain import Mode, NodeInfo, Shape
from services.scheduling.planner.catalogue import Catalogue, Model

NO_NODES_ONLINE = "NO_NODES_ONLINE"
GPU_TYPE_UNAVAILABLE = "GPU_TYPE_UNAVAILABLE"
GPU_MEMORY_TOO_LARGE = "GPU_MEMORY_TOO_LARGE"
GPU_COUNT_TOO_LARGE = "GPU_COUNT_TOO_LARGE"
CPU_TOO_LARGE = "CPU_TOO_LARGE"
MEMORY_TOO_LARGE = "MEMORY_TOO_LARGE"
DISK_TOO_LARGE = "DISK_TOO_LARGE"
REGION_UNAVAILABLE = "REGION_UNAVAILABLE"
PRICE_TOO_LOW = "PRICE_TOO_LOW"
NODES_BUSY = "NODES_BUSY"

# From what is furthest from fitting to what is nearest.
SENTENCES = {
    NO_NODES_ONLINE: "no node of this pool is online; start a node, or wait for one",
    GPU_TYPE_UNAVAILABLE: "no online node has a GPU of the type, class or vendor asked for",
    GPU_MEMORY_TOO_LARGE: "no online node has a GPU with that much memory; ask for less",
    GPU_COUNT_TOO_LARGE: "no online node has that many such GPUs; ask for fewer per task",
    CPU_TOO_LARGE: "no online node that fits otherwise has that many CPU cores; ask for fewer",
    MEMORY_TOO_LARGE: "no online node that fits otherwise has that much memory; ask for less",
    DISK_TOO_LARGE: "no online node that fits otherwise has that much disk; ask for less",
    REGION_UNAVAILABLE: "no online node that fits is in that region; choose another, or any",
    PRICE_TOO_LOW: "every online node that fits costs more than the price limit; raise it",
    NODES_BUSY: "the nodes that fit are busy; the job starts when one of them is free",
}

REGION_WISH = "region_preference"
FAMILY_WISH = "preferred_gpu_family"
AVOID_WISH = "avoid_gpu_families"

# Weight of price and of speed. The small one only breaks ties.
_WEIGHTS = {Mode.COST: (1.0, 0.02), Mode.SPEED: (0.02, 1.0), Mode.BALANCED: (1.0, 0.5)}
_UNLIMITED_SLOTS = 1 << 30


@dataclass(frozen=True, slots=True)
class KindKey:
    """All that makes two nodes of one kind."""

    pool: str
    region: str
    gpu_price: int
    cpu_price: int
    models: tuple[Model, ...]
    memories: tuple[int, ...]
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    slots: int
    runtimes: tuple[str, ...]
    simulated: bool


def kind_key(node: NodeInfo, catalogue: Catalogue) -> KindKey:
    """The kind a node is of."""
    models = tuple(catalogue.identify(gpu) for gpu in node.gpus)
    return KindKey(
        node.pool,
        node.region,
        node.gpu_price,
        node.cpu_price,
        models,
        tuple(
            _memory(gpu.memory_bytes, model) for gpu, model in zip(node.gpus, models, strict=True)
        ),
        node.cpu_millis,
        node.memory_bytes,
        node.disk_bytes,
        node.slots or _UNLIMITED_SLOTS,
        node.runtimes,
        node.simulated,
    )


def _memory(told: int, model: Model) -> int:
    """A driver shows a little less than the size a card is sold by; the size on the box counts."""
    return max(told, model.memory_bytes) if told >= model.memory_bytes * 0.85 else told


@dataclass(frozen=True, slots=True)
class Match:
    """A kind that fits a shape. `mask` has a bit for each GPU that does; `whole` when all do."""

    price: int
    mask: int
    whole: bool
    relaxed: tuple[str, ...]
    rank: tuple[object, ...]
    model: Model | None


def price_of(kind: KindKey, shape: Shape) -> int:
    """Micro-USD per hour of one task: its GPUs, or its cores when it has none."""
    if shape.gpu_count:
        return kind.gpu_price * shape.gpu_count
    return -(-kind.cpu_price * shape.cpu_millis // 1_000)


def considered(kind: KindKey, shape: Shape) -> bool:
    """The kind is of the pool and has the runtime; otherwise it is as if it were not there."""
    return kind.pool == shape.pool and (not shape.runtime or shape.runtime in kind.runtimes)


def misses(kind: KindKey, shape: Shape) -> list[str]:
    """Why no node of this kind could ever run the shape; empty when it could."""
    found = []
    if shape.gpu_count:
        typed = [place for place, model in enumerate(kind.models) if _typed(model, shape)]
        large = [place for place in typed if kind.memories[place] >= shape.gpu_memory_min]
        if not typed:
            found.append(GPU_TYPE_UNAVAILABLE)
        elif not large:
            found.append(GPU_MEMORY_TOO_LARGE)
        elif len(large) < shape.gpu_count:
            found.append(GPU_COUNT_TOO_LARGE)
    if shape.cpu_millis > kind.cpu_millis:
        found.append(CPU_TOO_LARGE)
    if shape.memory_bytes > kind.memory_bytes:
        found.append(MEMORY_TOO_LARGE)
    if shape.disk_bytes > kind.disk_bytes:
        found.append(DISK_TOO_LARGE)
    if shape.region_strict and shape.region and kind.region != shape.region:
        found.append(REGION_UNAVAILABLE)
    if shape.price_max and price_of(kind, shape) > shape.price_max:
        found.append(PRICE_TOO_LOW)
    return found


def match(kind: KindKey, shape: Shape) -> Match | None:
    """How a kind fits a shape; None when it never can."""
    if not considered(kind, shape) or misses(kind, shape):
        return None
    places = [
        place
        for place, model in enumerate(kind.models)
        if shape.gpu_count and _typed(model, shape) and kind.memories[place] >= shape.gpu_memory_min
    ]
    model = kind.models[places[0]] if places else None
    relaxed = _relaxed(kind, shape, model)
    price = price_of(kind, shape)
    return Match(
        price=price,
        mask=sum(1 << place for place in places),
        whole=len(places) == len(kind.models) or not shape.gpu_count,
        relaxed=relaxed,
        rank=(
            AVOID_WISH in relaxed,
            REGION_WISH in relaxed,
            FAMILY_WISH in relaxed,
            bool(kind.models) and not shape.gpu_count,
            _score(price, model, shape),
            price,
            *_total(kind),
        ),
        model=model,
    )


def _total(kind: KindKey) -> tuple[object, ...]:
    """Fields that make the order total, so that the same grid gives the same plan."""
    names = tuple(model.gpu_type for model in kind.models)
    sizes = (kind.cpu_millis, kind.memory_bytes, kind.disk_bytes, kind.slots)
    prices = (kind.gpu_price, kind.cpu_price)
    return (kind.simulated, kind.region, prices, names, kind.memories, sizes, kind.runtimes)


def _typed(model: Model, shape: Shape) -> bool:
    return (
        (not shape.gpu_type or model.answers(shape.gpu_type))
        and (not shape.gpu_class or model.gpu_class == shape.gpu_class)
        and (not shape.vendor or model.vendor == shape.vendor)
    )


def _relaxed(kind: KindKey, shape: Shape, model: Model | None) -> tuple[str, ...]:
    family = model.family if model is not None else ""
    dropped = (
        (AVOID_WISH, family in shape.avoid_families),
        (REGION_WISH, bool(shape.region) and kind.region != shape.region),
        (
            FAMILY_WISH,
            bool(shape.preferred_family and shape.gpu_count) and family != shape.preferred_family,
        ),
    )
    return tuple(name for name, lost in dropped if lost)


def _score(price: int, model: Model | None, shape: Shape) -> float:
    by_price, by_speed = _WEIGHTS[shape.mode]
    speed = model.speed * shape.gpu_count if model is not None else 1.0
    return by_price * log(max(price, 1)) - by_speed * log(speed)


def capacity(kind: KindKey, shape: Shape, found: Match) -> int:
    """Tasks of a shape that one empty node of this kind takes."""
    limits = [kind.slots]
    for wanted, there in (
        (shape.cpu_millis, kind.cpu_millis),
        (shape.memory_bytes, kind.memory_bytes),
        (shape.disk_bytes, kind.disk_bytes),
        (shape.gpu_count, found.mask.bit_count()),
    ):
        if wanted:
            limits.append(there // wanted)
    return min(limits)


def nearest_miss(kinds: Sequence[KindKey], shape: Shape) -> str:
    """The code that says why nothing fits: of the kind that misses by the least."""
    near = [misses(kind, shape) for kind in kinds if considered(kind, shape)]
    if not near:
        return NO_NODES_ONLINE
    # Of kinds that miss by as many points, the one that comes closest on the first of them.
    order = list(SENTENCES)
    return min(near, key=lambda found: (len(found), -order.index(found[0])))[0]
