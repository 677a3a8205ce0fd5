"""One shape against all kinds of node, worked out once and kept up with the grid's changes."""

from __future__ import annotations

from services.scheduling.domain import Shape
from services.scheduling.planner.grid import Grid, Kind
from services.scheduling.planner.match import Match, match

_VIEWS_MAX = 2_048


class View:
    """Kinds that fit a shape, best first. No kind before `start` has a node that fits now."""

    __slots__ = ("generation", "matches", "order", "places", "seen", "shape", "start")

    def __init__(self, shape: Shape, grid: Grid) -> None:
        self.shape = shape
        self.build(grid)

    def build(self, grid: Grid) -> None:
        """Looks at every kind."""
        found = [
            (each.rank, kind, each)
            for kind in grid.kinds.values()
            if (each := match(kind.key, self.shape)) is not None
        ]
        found.sort(key=lambda item: item[0])
        self.order: list[tuple[Kind, Match]] = [(kind, each) for _, kind, each in found]
        self.matches = {id(kind): each for kind, each in self.order}
        self.places = {id(kind): place for place, (kind, _) in enumerate(self.order)}
        self.generation = grid.generation
        self.seen = grid.now
        self.start = 0

    def keep_up(self, grid: Grid) -> None:
        """Takes in what has changed since it was last asked."""
        if self.generation != grid.generation:
            self.build(grid)
        elif self.seen != grid.now:
            changes = grid.changes(self.seen)
            if changes is None:
                self.start = 0
            else:
                places = [self.places.get(id(node.kind), self.start) for node in changes]
                self.start = min([self.start, *places])
            self.seen = grid.now

    def overlaps(self, other: View) -> bool:
        """Both shapes could use nodes of one kind."""
        return not self.places.keys().isdisjoint(other.places)


class Views:
    """Views by shape, the least lately made thrown away first."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._views: dict[Shape, View] = {}

    def of(self, shape: Shape) -> View:
        """The view of a shape as of now."""
        view = self._views.get(shape)
        if view is None:
            if len(self._views) >= _VIEWS_MAX:
                del self._views[next(iter(self._views))]
            view = self._views[shape] = View(shape, self._grid)
        else:
            view.keep_up(self._grid)
        return view
