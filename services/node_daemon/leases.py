"""All leases of this node: the reactor's decisions carried out."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

from libs.errors import GridError
from libs.telemetry import logger, metrics
from services.node_daemon import domain
from services.node_daemon.attempts import Lease, Revoked
from services.node_daemon.domain import Claim, Desired, Kill, Refuse, Stop, Want
from services.node_daemon.runtime.port import Attempt
from services.node_daemon.world import World

_log = logger("leases")
_held = metrics.gauge("grid_node_leases", "Leases this node holds.")


class Leases:
    """Held leases by id, one task each."""

    def __init__(self, world: World) -> None:
        self.cannot = ""  # why no new work is taken
        self.stop_grace_seconds = 10.0
        self._world = world
        self._leases: dict[str, Lease] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._desired = Desired({}, 0)
        self._whole = False
        self._refused: frozenset[tuple[str, int]] = frozenset()
        self._closing = False

    @property
    def ids(self) -> list[str]:
        """Of all that is held, started or not."""
        return list(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._leases.values()))

    def get(self, lease_id: str) -> Lease | None:
        """The lease, if it is held."""
        return self._leases.get(lease_id)

    def adopt(self, attempts: Sequence[Attempt]) -> None:
        """Goes on with what a former daemon has left."""
        for each in attempts:
            want = Want(each.lease_id, each.job_id, each.attempt, each.task_index)
            self._hold(Lease(want, self._world, each))

    def opened(self, epoch: int) -> None:
        """A new session: what the grid wants is not known yet."""
        self._desired, self._whole, self._refused = Desired({}, epoch), False, frozenset()

    def told(self, wants: Sequence[Want], *, full: bool) -> None:
        """The grid has said what it wants."""
        self._desired = self._desired.merged(wants, full=full)
        self._whole = self._whole or full
        self.act()

    def act(self) -> None:
        """Makes what is held into what is desired."""
        if self._closing:
            return
        held = {lease_id: lease.held for lease_id, lease in self._leases.items()}
        for action in domain.on_sync(
            held,
            self._desired,
            known_whole=self._whole,
            refused=self._refused,
            cannot=self.cannot,
        ):
            self._do(action)

    def renew(self, deadline: float) -> None:
        """All leases hold until then."""
        for lease in self._leases.values():
            lease.renew(deadline)

    def kill_all(self, reason: str) -> None:
        """The session is void: nothing of it may go on."""
        for lease in self._leases.values():
            lease.kill(reason)

    async def close(self) -> None:
        """Lets go of everything: attempts go on without this daemon."""
        self._closing = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _do(self, action: domain.Action) -> None:
        match action:
            case Claim(want):
                self._hold(Lease(want, self._world))
            case Refuse(want, reason):
                self._hold(Lease(want, self._world), refuse=reason)
            case Stop(lease_id, reason):
                self._leases[lease_id].stop(reason, self.stop_grace_seconds)
            case Kill(lease_id, reason):
                if not self._leases[lease_id].killed:
                    _log.info("lease killed", lease_id=lease_id, why=reason)
                    self._leases[lease_id].kill(reason)

    def _hold(self, lease: Lease, refuse: str = "") -> None:
        lease_id = lease.want.lease_id
        self._leases[lease_id] = lease
        work = lease.refuse(refuse) if refuse else lease.run()
        task = asyncio.create_task(self._run(lease, work), name=lease_id)
        self._tasks[lease_id] = task
        _held.set(len(self._leases))

    async def _run(self, lease: Lease, work: Coroutine[Any, Any, None]) -> None:
        lease_id = lease.want.lease_id
        try:
            await work
        except Revoked:
            self._refused |= {(lease_id, lease.asked_epoch)}
        except GridError as error:
            self._refused |= {(lease_id, self._desired.epoch)}
            _log.info("lease not started", lease_id=lease_id, why=error.message)
        except Exception:
            self._refused |= {(lease_id, self._desired.epoch)}
            _log.exception("lease failed on this node", lease_id=lease_id)
        else:
            self._desired = self._desired.without(lease_id)
        finally:
            self._leases.pop(lease_id, None)
            self._tasks.pop(lease_id, None)
            _held.set(len(self._leases))
        self.act()
