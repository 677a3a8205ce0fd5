"""What can be said before and while an entry waits. Changes nothing.

The wait. Work of a shape can run on C tasks at once (the sum over its kinds of what their open
nodes hold when empty). D tasks compete for the same kinds before it, and a run lasts R on average
(a moving average of what was seen, an assumption before that). Then a place comes free every R / C,
and the wait is about (D + tasks) x R / C; half of it is given as the least and twice as the most.
Work that fits at once waits for the dispatch only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from services.scheduling.domain import SIMULATED, Entry, Gpu, Mode, Quote, Shape, Waiting
from services.scheduling.planner.grid import Kind
from services.scheduling.planner.match import (
    GPU_COUNT_TOO_LARGE,
    NODES_BUSY,
    SENTENCES,
    Match,
    capacity,
    nearest_miss,
)
from services.scheduling.planner.plan import Planner
from services.scheduling.planner.view import View

_LOOK_BACK_MAX = 10_000
_LINES_MAX = 256


@dataclass(frozen=True, slots=True)
class Terms:
    """What an estimate counts with. Seconds; factors are applied to the likely price."""

    run_seconds: float
    dispatch_seconds: float
    ceiling: dict[Mode, float]


def quote(planner: Planner, shape: Shape, tasks: int, now: datetime, terms: Terms) -> Quote:
    """Where work would run, at what price, and when."""
    view = planner.views.of(shape)
    order = [(kind, found) for kind, found in view.order if kind.open]
    room = sum(kind.open * capacity(kind.key, shape, found) for kind, found in order)
    if room < tasks:
        return _unavailable(planner, shape, bool(order))
    node = planner.fits_now(shape, tasks, now)
    likely, found = order[0] if node is None else (node.kind, view.matches[id(node.kind)])
    prices = [each.price for _, each in order]
    depth = _depth(planner, view)
    least, most = _wait(depth, tasks, room, terms, immediate=node is not None)
    return Quote(
        candidates=sum(kind.open for kind, _ in order),
        immediate=node is not None,
        price=found.price,
        price_min=min(prices),
        price_max=max(prices),
        ceiling=_ceiling(shape, found.price, max(prices), terms),
        gpu=_gpu(likely, found),
        gpu_family=found.model.family if found.model is not None else "",
        tier=found.model.tier if found.model is not None else "cpu",
        region=likely.key.region,
        queue_depth=depth,
        wait_seconds_min=least,
        wait_seconds_max=most,
        relaxed=found.relaxed,
        simulated=likely.key.simulated
        if shape.gpu_count
        else likely.key.runtimes[:1] == (SIMULATED,),
    )


def explain(planner: Planner, entry: Entry | None) -> Waiting:
    """Why an entry is not placed."""
    if entry is None:
        return Waiting(queued=False)
    view = planner.views.of(entry.shape)
    room = sum(
        kind.open * capacity(kind.key, entry.shape, found)
        for kind, found in view.order
        if kind.open
    )
    code = NODES_BUSY if room >= entry.tasks else _why(planner, entry.shape, bool(room))
    return Waiting(True, _position(planner, entry), code, SENTENCES[code])


def _unavailable(planner: Planner, shape: Shape, some: bool) -> Quote:
    """Nothing online could run it. A listed GPU still gives a typical price and a tier."""
    code = _why(planner, shape, some)
    model = None
    if shape.gpu_count:
        model = planner.grid.catalogue.cheapest(
            memory_min=shape.gpu_memory_min,
            gpu_type=shape.gpu_type,
            gpu_class=shape.gpu_class,
            vendor=shape.vendor,
        )
    price = model.price * shape.gpu_count if model is not None else 0
    return Quote(
        price=price,
        price_min=price,
        price_max=price,
        ceiling=shape.price_max or price,
        gpu_family=model.family if model is not None else "",
        tier=model.tier if model is not None else "" if shape.gpu_count else "cpu",
        unavailable_code=code,
        unavailable_reason=SENTENCES[code],
    )


def _why(planner: Planner, shape: Shape, some: bool) -> str:
    # Some nodes fit one task, and there are not enough of them for all.
    if some:
        return GPU_COUNT_TOO_LARGE
    return nearest_miss([kind.key for kind in planner.grid.kinds.values() if kind.open], shape)


def _depth(planner: Planner, view: View) -> int:
    """Entries that compete for the same kinds; of very many lines only the first are looked at."""
    lines = planner.queue.lines
    looked_at = list(islice(lines.values(), _LINES_MAX))
    counts = [line.count for line in looked_at if planner.views.of(line.shape).overlaps(view)]
    return sum(counts) * len(lines) // max(len(looked_at), 1)


def _position(planner: Planner, entry: Entry) -> int:
    view = planner.views.of(entry.shape)
    before = islice(planner.queue.before(entry), _LOOK_BACK_MAX)
    return sum(1 for other in before if planner.views.of(other.shape).overlaps(view))


def _wait(depth: int, tasks: int, room: int, terms: Terms, *, immediate: bool) -> tuple[int, int]:
    if immediate:
        return 0, round(terms.dispatch_seconds)
    wait = (depth + tasks) * terms.run_seconds / max(room, 1)
    return round(wait / 2), round(wait * 2 + terms.dispatch_seconds)


def _ceiling(shape: Shape, likely: int, most: int, terms: Terms) -> int:
    """What to reserve with: the buyer's own limit, or some room above the likely price; never more
    than the dearest node that fits."""
    if shape.price_max:
        return min(shape.price_max, most)
    return min(round(likely * terms.ceiling[shape.mode]), most)


def _gpu(kind: Kind, found: Match) -> Gpu | None:
    """A GPU as the likely node has it; all nodes of a kind have the same."""
    if found.model is None or kind.sample is None:
        return None
    return kind.sample.gpus[(found.mask & -found.mask).bit_length() - 1]
