"""The daemon as a part: opens the runtimes, becomes a node, takes over what is left, and serves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import aiohttp
from junglegrid.common.v1 import resources_pb2
from junglegrid.nodes.v1 import lease_pb2
from junglegrid.nodes.v1 import node_session_service_pb2 as pb

from libs.clock import Clock
from libs.process import TaskPart
from libs.telemetry import logger
from services.node_daemon import domain, identity, journal
from services.node_daemon.config import NodeConfig
from services.node_daemon.gpu.port import Gpus
from services.node_daemon.grid import Backoff, Grid, insist
from services.node_daemon.leases import Leases
from services.node_daemon.logs_out import LogsOut
from services.node_daemon.runtime.port import Attempt, Runtime
from services.node_daemon.session import Session
from services.node_daemon.uploads import Uploads
from services.node_daemon.world import World

_log = logger("node")
_READ_SECONDS = 60.0


class Daemon:
    """See `libs.process.Part`; it dies with its session when the node is revoked."""

    name = "node"

    def __init__(
        self,
        config: NodeConfig,
        runtimes: Mapping[str, Runtime],
        gpus: Gpus | None,
        clock: Clock,
    ) -> None:
        self._config = config
        self._runtimes = runtimes
        self._gpus = gpus
        self._clock = clock
        self._identity: identity.Identity | None = None
        self._grid: Grid | None = None
        self._draining = False
        self._opened: list[Runtime] = []
        self.session: Session | None = None
        self._leases: Leases | None = None
        self._http: aiohttp.ClientSession | None = None
        self._logs: TaskPart | None = None

    async def start(self) -> None:
        # Not before: gRPC binds a channel to the loop that runs.
        self._grid = Grid(self._config.grid, self._config.tls_ca_file, self._credential)
        self._identity = identity.load(self._config.home)
        attempts = await self._open_runtimes()
        inventory = self._inventory()
        if self._identity is None:
            self._identity = await self._enrol(self._grid, inventory)
        session = Session(
            self._grid,
            inventory,
            self._clock,
            self._config.limits,
            look=self._look,
            on_open=self._announce,
        )
        world = self._world(self._grid, session)
        self._leases = session.leases = Leases(world)
        self.session = session
        self._leases.adopt(attempts)
        self._logs = TaskPart("node-logs", world.logs.run, clock=self._clock)
        await self._logs.start()
        await session.start()

    async def stop(self) -> None:
        for part in (self.session, self._logs):
            if part is not None:
                await part.stop()
        if self._leases is not None:
            await self._leases.close()
        if self._http is not None:
            await self._http.close()
        if self._grid is not None:
            await self._grid.close()
        for runtime in reversed(self._opened):
            await runtime.close()
        if self._gpus is not None:
            self._gpus.close()

    async def watch(self) -> None:
        """Raises NodeRevoked."""
        assert self.session is not None
        await self.session.watch()

    async def _open_runtimes(self) -> list[Attempt]:
        found: list[Attempt] = []
        for runtime in self._runtimes.values():
            self._opened.append(runtime)
            await runtime.open()
            found += await runtime.adopt()
        if found:
            _log.info("attempts taken over", leases=[each.lease_id for each in found])
        return found

    async def _enrol(self, grid: Grid, inventory: lease_pb2.NodeInventory) -> identity.Identity:
        token = identity.read_token(self._config.enrolment_token_file)
        request = pb.EnrolRequest(
            enrolment_token=token,
            name=self._config.name or os.uname().nodename,
            inventory=inventory,
            region=self._config.region,
        )
        limits = self._config.limits
        backoff = Backoff(self._clock, limits.retry_seconds, limits.retry_seconds_max)

        async def ask() -> pb.EnrolResponse:
            answer: pb.EnrolResponse = await grid.decisions.Enrol(request)
            return answer

        answer = await insist(ask, backoff)
        found = identity.Identity(answer.node_id, answer.credential)
        identity.keep(self._config.home, found)
        _log.info("enrolled", node_id=found.node_id)
        return found

    def _world(self, grid: Grid, session: Session) -> World:
        limits, home = self._config.limits, self._config.home
        notes = journal.Journal(home / "leases")
        notes.open()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_READ_SECONDS)
        self._http = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        return World(
            grid=grid,
            runtimes=self._runtimes,
            logs=LogsOut(grid, self._clock, limits),
            uploads=Uploads(grid, self._http, self._clock, limits),
            http=self._http,
            journal=notes,
            clock=self._clock,
            limits=limits,
            epoch=lambda: session.epoch,
            deadline=lambda: session.deadline,
            tell=session.tell,
        )

    def _inventory(self) -> lease_pb2.NodeInventory:
        config = self._config
        gpus = self._gpus.inventory() if self._gpus is not None else ()
        first = next(iter(self._runtimes.values()))
        return lease_pb2.NodeInventory(
            gpus=[
                resources_pb2.Gpu(
                    index=gpu.index,
                    uuid=gpu.uuid,
                    name=gpu.name,
                    memory_bytes=gpu.memory_bytes,
                    vendor=gpu.vendor,
                    simulated=gpu.simulated,
                )
                for gpu in gpus
            ],
            cpu_millis=config.cpu_millis or len(os.sched_getaffinity(0)) * 1000,
            memory_bytes=config.memory_bytes or _memory_bytes(),
            disk_bytes=config.disk_bytes or config.slots * config.slot_bytes,
            runtimes=list(self._runtimes),
            isolation=[each.layer for each in first.describe() if each.present],
            daemon_version=_version(),
            slots=config.slots,
            simulated=first.simulated or any(gpu.simulated for gpu in gpus),
        )

    def _look(self) -> str:
        """Why no new work is wanted: the disk under the home is nearly full."""
        space = os.statvfs(self._config.home)
        used = 1 - space.f_bavail / space.f_blocks if space.f_blocks else 0.0
        full = self._config.limits.disk_full_share
        draining = domain.drains(used, draining=self._draining, full_share=full)
        if draining != self._draining:
            _log.warning("disk nearly full" if draining else "disk has room", used=round(used, 3))
        self._draining = draining
        return f"the node's disk is {used:.0%} full" if draining else ""

    def _announce(self, node_id: str) -> None:
        missing = [
            each.layer
            for runtime in self._runtimes.values()
            for each in runtime.describe()
            if not each.present
        ]
        note = f", missing layers: {', '.join(missing)}" if missing else ""
        # For whoever started this process and waits for it.
        print(f"node online {node_id} runtimes {'/'.join(self._runtimes)}{note}", flush=True)  # noqa: T201

    def _credential(self) -> str:
        assert self._identity is not None
        return self._identity.credential


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 9 // 10


def _version() -> str:
    try:
        return version("jungle-grid")
    except PackageNotFoundError:
        return "0.1.0"
