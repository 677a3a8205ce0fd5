"""What all attempts of a daemon share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp

from libs.clock import Clock
from services.node_daemon import journal
from services.node_daemon.config import Limits
from services.node_daemon.grid import Backoff, Grid
from services.node_daemon.logs_out import LogsOut
from services.node_daemon.runtime.port import Runtime
from services.node_daemon.uploads import Uploads


@dataclass(frozen=True, slots=True)
class World:
    """What all attempts of a daemon share. `epoch` is that of the session now, `deadline` the end
    of all leases on the monotonic clock; `tell` says that a lease has news for the grid."""

    grid: Grid
    runtimes: Mapping[str, Runtime]
    logs: LogsOut
    uploads: Uploads
    http: aiohttp.ClientSession
    journal: journal.Journal
    clock: Clock
    limits: Limits
    epoch: Callable[[], int]
    deadline: Callable[[], float]
    tell: Callable[[str], None]

    def backoff(self) -> Backoff:
        """A fresh one."""
        return Backoff(self.clock, self.limits.retry_seconds, self.limits.retry_seconds_max)

    def runtime(self, name: str) -> Runtime:
        """The runtime that was asked for, or the node's best."""
        return self.runtimes.get(name) or next(iter(self.runtimes.values()))
