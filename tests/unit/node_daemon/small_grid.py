"""A grid around one daemon: the real nodes service behind a real listener, with a log store, an
object store and jobs that only remember. Time runs at a twelfth or so of the product's."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from junglegrid.artifacts.v1 import artifact_upload_service_pb2_grpc as upload_grpc
from junglegrid.logs.v1 import log_ingest_service_pb2_grpc as log_grpc
from junglegrid.nodes.v1 import node_session_service_pb2_grpc as session_grpc

from libs.bus.events import decode, record
from libs.clock import SystemClock
from libs.db import Database, OutboxEvent, connect
from libs.ids import IdSource
from libs.rpc import (
    AttemptGrant,
    Grants,
    NodeAuthenticator,
    Principal,
    Server,
    Signer,
    Verifier,
    default_interceptors,
)
from libs.rpc.authenticate import SESSION_PREFIX
from libs.rpc.token import to_text
from libs.tenancy import Tenant
from services.node_daemon.config import Limits, NodeConfig
from services.node_daemon.daemon import Daemon
from services.node_daemon.module import build
from services.nodes import convert, tables
from services.nodes.config import NodesConfig
from services.nodes.domain import Lease, LeaseState, Placement, Resources, Slot, TokenDraft
from services.nodes.repository import NodesRepository
from services.nodes.rpc import NodeSessionService
from services.nodes.service import Deps, NodesService
from services.nodes.service.deps import SCOPE
from services.nodes.session import Sessions
from tests.unit.node_daemon.edges import FakeJobs, FakeLogs, FakeStore

ROOT = Path(__file__).parents[3]
KEY = bytes(32)
NODES = NodesConfig(
    heartbeat_seconds=0.1,
    lease_ttl_seconds=2.0,
    lost_grace_seconds=1.5,
    stop_grace_seconds=0.3,
    renewal_flush_seconds=0.05,
    desired_sweep_seconds=0.3,
)
LIMITS = Limits(
    retry_seconds=0.02,
    retry_seconds_max=0.1,
    log_gap_seconds=1.0,
    upload_seconds_max=2.0,
    input_seconds_max=2.0,
    silent_heartbeats_max=10,
)
_NUMBERS = itertools.count(1)


@dataclass
class SmallGrid:
    """What a test holds."""

    folder: Path
    database: Database
    service: NodesService
    deps: Deps
    jobs: FakeJobs
    logs: FakeLogs
    store: FakeStore
    told: list[OutboxEvent]
    listener: Callable[[], Server]
    server: Server
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        return f"unix:{self.folder}/node.sock"

    async def token(self) -> Path:
        draft = TokenDraft("ws_provider", "Provider", "", 500_000, 20_000, 0.0)
        text, _ = await self.service.enrolment.create_enrolment_token(draft)
        path = self.folder / f"token{next(_NUMBERS)}"
        path.write_text(text)
        return path

    async def config(self, name: str = "node", **changes: Any) -> NodeConfig:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        values: dict[str, Any] = {
            "grid": self.address,
            "home": home,
            "runtimes": ("simulated",),
            "gpus": "simulated:l4:24GiB:2",
            "enrolment_token_file": await self.token(),
            "limits": LIMITS,
        }
        return NodeConfig(**values | changes)

    @asynccontextmanager
    async def daemon(self, name: str = "node", **changes: Any) -> AsyncIterator[Daemon]:
        found = build(await self.config(name, **changes), SystemClock())
        await found.start()
        try:
            await self.until(lambda: bool(found.session and found.session.epoch))
            yield found
        finally:
            await found.stop()

    async def node_id(self) -> str:
        page, _ = await self.service.operations.list_nodes("", "", 10)
        return page[-1][0].node_id

    async def place(self, node_id: str | None = None, attempt: int = 1) -> Lease:
        number = next(_NUMBERS)
        where = node_id or await self.node_id()
        slot = Slot(f"alc_{number}", 0, where, Resources(1000, 1 << 28, 1 << 25), ())
        placement = Placement("plc", f"job_{number}", attempt, [slot], 1, "res", 60, False)
        await self.database.write(
            lambda tx: self.service.leases.apply_placed(tx, Tenant("ws_1"), placement)
        )
        held = await self.database.read(
            lambda tx: self.deps.repository.open_leases_of_job(tx, SCOPE, placement.job_id)
        )
        return held[0]

    async def stop_job(self, job_id: str) -> None:
        await self.database.write(lambda tx: self.service.leases.apply_stop(tx, job_id, 9, "user"))

    async def lease(self, lease_id: str) -> Lease:
        found = await self.database.read(lambda tx: self.deps.repository.lease(tx, SCOPE, lease_id))
        assert found is not None
        return found

    async def closed(self, lease: Lease, seconds: float = 10) -> Lease:
        return await self.reaches(lease, LeaseState.CLOSED, seconds)

    async def reaches(self, lease: Lease, state: LeaseState, seconds: float = 10) -> Lease:
        async with asyncio.timeout(seconds):
            while True:
                self._news.clear()
                found = await self.lease(lease.lease_id)
                if found.state is state:
                    return found
                await self._news.wait()

    def facts(self, lease: Lease) -> list[Any]:
        found = []
        for event in self.told:
            _, message = decode(record(event))
            fact = getattr(message, str(message.WhichOneof("fact")))
            if event.topic.endswith("LeaseEvent") and fact.lease.lease_id == lease.lease_id:
                found.append(fact)
        return found

    def kinds(self, lease: Lease) -> list[str]:
        return [type(fact).__name__ for fact in self.facts(lease)]

    async def until(self, seen: Callable[[], bool], seconds: float = 10) -> None:
        """Waits for something in this process that tells nobody."""
        async with asyncio.timeout(seconds):
            while not seen():  # noqa: ASYNC110 - it is looked at from outside
                await asyncio.sleep(0.005)

    async def restart_listener(self) -> None:
        """The grid goes away and comes back; the tables stay."""
        await self.server.stop()
        self.server = self.listener()
        await self.server.start()

    def heard(self, events: Any) -> None:
        self.told.extend(events)
        self._news.set()


@asynccontextmanager
async def small_grid(folder: Path, config: NodesConfig = NODES) -> AsyncIterator[SmallGrid]:
    clock, grants = SystemClock(), Grants(KEY)
    database = connect(
        f"sqlite:///{folder}/nodes.db",
        metadata=tables.metadata,
        migrations=ROOT / "services/nodes/migrations",
        clock=clock,
        service="nodes",
    )
    await database.start()
    jobs, logs, store = FakeJobs(), FakeLogs(grants), FakeStore(grants)
    deps = _deps(database, config, jobs, grants)
    service = NodesService(deps)

    def listener() -> Server:
        return _server(f"unix:{folder}/node.sock", service, config, logs, store)

    grid = SmallGrid(folder, database, service, deps, jobs, logs, store, [], listener, listener())
    database.on_outbox(grid.heard)
    await store.start()
    await grid.server.start()
    loops = [asyncio.create_task(_expire(service)), asyncio.create_task(_renew(service))]
    try:
        yield grid
    finally:
        for loop in loops:
            loop.cancel()
        await grid.server.stop()
        await store.stop()
        await database.stop()


async def _expire(service: NodesService) -> None:
    while True:  # noqa: ASYNC110 - the loop of the service
        await asyncio.sleep(await service.liveness.expire())


async def _renew(service: NodesService) -> None:
    await service.streams.keep_renewals()


def _server(
    address: str, service: NodesService, config: NodesConfig, logs: FakeLogs, store: FakeStore
) -> Server:
    async def verify(bearer: str) -> Principal:
        return Principal(kind="node", subject=await service.enrolment.authenticate(bearer))

    chain = default_interceptors(NodeAuthenticator(Verifier(KEY, audience="node-data"), verify))
    return Server(
        address,
        [
            (
                session_grpc.add_NodeSessionServiceServicer_to_server,
                NodeSessionService(service, config),
            ),
            (log_grpc.add_LogIngestServiceServicer_to_server, logs),
            (upload_grpc.add_ArtifactUploadServiceServicer_to_server, store),
        ],
        chain,
        grace_seconds=0.2,
    )


def _deps(database: Database, config: NodesConfig, jobs: FakeJobs, grants: Grants) -> Deps:
    clock = SystemClock()
    ids, signer = IdSource(clock), Signer(KEY, audience="node-data")

    def sign_grant(lease: Lease, expires: float) -> bytes:
        return grants.sign(
            AttemptGrant(
                lease.workspace_id,
                lease.job_id,
                lease.attempt,
                lease.task_index,
                lease.lease_id,
                lease.node_id,
                lease.session_epoch,
                expires,
            )
        )

    def sign_session(node_id: str, epoch: int, expires: float) -> str:
        principal = Principal(kind="node", subject=node_id, session=str(epoch), expires=expires)
        return SESSION_PREFIX + to_text(signer.sign(principal))

    return Deps(
        database=database,
        repository=NodesRepository(),
        ids=ids,
        clock=clock,
        config=config,
        sessions=Sessions(),
        launches=jobs,
        lease_event=partial(convert.lease_event, ids),
        node_event=partial(convert.node_event, ids),
        sign_grant=sign_grant,
        sign_session=sign_session,
    )
