"""The planner, and the one way in which a placement is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from libs import failpoints
from libs.db import OutboxEvent, Tx
from libs.ids import IdSource
from libs.telemetry import metrics
from libs.tenancy import SystemScope
from libs.wake import Wake
from services.scheduling.config import SchedulingConfig
from services.scheduling.domain import Gpu, Hold, Mode, Placed, Placement
from services.scheduling.planner import Catalogue, Planner, Rules
from services.scheduling.planner.quote import Terms
from services.scheduling.repository import GridRows, QueueRows

PLAN = "scheduling.plan"
GRID = SystemScope("scheduling: nodes and holds of the grid")
Tell = Callable[[Placed], OutboxEvent]
# Weight of one more run in the moving average of their length.
_RUN_SHARE = 0.05


_placements = metrics.counter("grid_placements_total", "Entries placed.")
_TAKEN = failpoints.register(
    "scheduling.commit.in_transaction", "placements are written, and nothing is committed yet"
)
_COMMITTED = failpoints.register(
    "scheduling.commit.after_commit", "placements are durable, and nobody has been told"
)


def _committed(count: int) -> None:
    _placements.inc(count)
    _COMMITTED.hit()


@dataclass(slots=True)
class Rows:
    """The repository."""

    grid: GridRows
    queue: QueueRows


class State:
    """What calls, facts and time share. Touched from the event loop only."""

    def __init__(
        self,
        *,
        rows: Rows,
        catalogue: Catalogue,
        ids: IdSource,
        wake: Wake,
        config: SchedulingConfig,
        tell: Tell,
    ) -> None:
        self.rows = rows
        self.config = config
        self._catalogue = catalogue
        self._ids = ids
        self._wake = wake
        self._tell = tell
        self._run_seconds = config.run_seconds_assumed
        self.planner = self._planner()

    def _planner(self) -> Planner:
        rules = Rules(
            self.config.aging_seconds, self.config.aged_entries_max, self.config.suspect_seconds
        )
        return Planner(self._catalogue, rules, lambda: self._ids.new("alc"))

    def load(self, tx: Tx) -> None:
        """Rebuilds the planner from the tables. Changes that are committed and not taken in yet may
        come a second time; all of them are idempotent."""
        planner = self._planner()
        for info in self.rows.grid.all_nodes(tx, GRID):
            planner.put_node(info)
        for hold in self.rows.grid.all_holds(tx, GRID):
            planner.hold(hold)
        for entry in self.rows.queue.waiting(tx, GRID):
            planner.queue.add(entry)
        self.planner = planner

    def write(self, tx: Tx, placements: Sequence[Placement]) -> frozenset[str]:
        """Writes placements whose entries are marked already: nodes, holds and facts. Returns the
        stale nodes; when there are any, nothing may be kept."""
        planner = self.planner
        infos = {
            hold.node_id: planner.grid.nodes[hold.node_id].info
            for placement in placements
            for hold in placement.holds
        }
        stale = self.rows.grid.take(tx, GRID, placements, infos)
        if not stale:
            for placement in placements:
                tx.emit(self._tell(self._placed(tx, placement)))
            tx.after_commit(lambda: _committed(len(placements)))
            _TAKEN.hit()
        return stale

    def _placed(self, tx: Tx, placement: Placement) -> Placed:
        gpus = {hold.allocation_id: self._gpus(hold) for hold in placement.holds}
        name = self._ids.new("plc")
        return Placed(placement, name, placement.entry.event_seq + 1, tx.now(), gpus)

    def _gpus(self, hold: Hold) -> tuple[Gpu, ...]:
        info = self.planner.grid.nodes[hold.node_id].info
        return tuple(gpu for gpu in info.gpus if gpu.uuid in hold.gpu_uuids)

    def wake(self) -> None:
        """The loop looks at the queue."""
        self._wake.notify(PLAN)

    def ran(self, time: timedelta) -> None:
        """A hold lasted this long; estimates count with it."""
        seconds = max(time.total_seconds(), 0.0)
        self._run_seconds += (seconds - self._run_seconds) * _RUN_SHARE

    @property
    def terms(self) -> Terms:
        """What an estimate counts with now."""
        return Terms(
            run_seconds=self._run_seconds,
            dispatch_seconds=self.config.dispatch_seconds,
            ceiling={
                Mode.COST: self.config.ceiling_factor_cost,
                Mode.BALANCED: self.config.ceiling_factor_balanced,
                Mode.SPEED: self.config.ceiling_factor_speed,
            },
        )
