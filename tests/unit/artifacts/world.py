"""artifacts without the grid around it: real rows, real files, a clock that stands still."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.clock import ManualClock
from libs.db import Database, connect
from libs.errors import NotFound
from libs.ids import IdSource
from libs.objects import Objects
from libs.objects import connect as connect_objects
from libs.tenancy import Tenant
from services.artifacts import tables
from services.artifacts.config import ArtifactsConfig
from services.artifacts.domain import Announcement, Artifact, Claim, Input, Writer
from services.artifacts.repository import ArtifactsRepository, InputsRepository
from services.artifacts.service import (
    Downloads,
    Inputs,
    InputSlots,
    JobRef,
    Slot,
    Sweeper,
    Uploads,
)

OURS, THEIRS = Tenant("ws_ours"), Tenant("ws_theirs")
MIGRATIONS = Path(tables.__file__).parent / "migrations"
BASE = "https://grid.example"


class KnownJobs:
    """The jobs service: what it owns, by workspace."""

    def __init__(self) -> None:
        self.owned: set[tuple[str, str]] = set()
        self.asked = 0

    async def get_ref(self, tenant: Tenant, job_id: str) -> JobRef:
        self.asked += 1
        if (tenant.workspace_id, job_id) not in self.owned:
            raise NotFound("no such job")
        return JobRef(1)


@dataclass
class World:
    clock: ManualClock
    database: Database
    objects: Objects
    config: ArtifactsConfig
    jobs: KnownJobs
    slots: InputSlots
    inputs: Inputs
    uploads: Uploads
    downloads: Downloads
    sweeper: Sweeper

    async def start(self) -> None:
        await self.database.start()
        await self.objects.start()

    async def stop(self) -> None:
        await self.database.stop()
        await self.objects.stop()

    async def slot(
        self,
        name: str = "audio.ogg",
        *,
        kind: str = "input",
        size: int | None = None,
        tenant: Tenant = OURS,
    ) -> Slot:
        return await self.slots.create_job_input(tenant, name, "audio/ogg", kind, size)

    async def send(self, item: Input | Artifact, data: bytes) -> None:
        """What a PUT does, without HTTP."""
        await self.objects.put(item.staging_key, data, "")

    async def uploaded(
        self, name: str = "audio.ogg", *, kind: str = "input", tenant: Tenant = OURS
    ) -> Input:
        slot = await self.slot(name, kind=kind, tenant=tenant)
        await self.send(slot.item, name.encode())
        return await self.slots.complete_job_input(tenant, slot.item.input_id, Claim(slot.token))

    async def ready(self, writer: Writer, name: str, data: bytes = b"done") -> Artifact:
        made = await self.uploads.create_upload(writer, announced(name, data))
        await self.send(made.artifact, data)
        return await self.uploads.commit_upload(writer, made.artifact.artifact_id)

    async def rows(self, name: str) -> list[Any]:
        table = tables.metadata.tables[name]
        return await self.database.read(lambda tx: list(tx.execute(table.select()).all()))

    async def keys(self, prefix: str = "") -> list[str]:
        return [info.key for info in await self.objects.list(prefix)]

    async def bytes_of(self, key: str) -> bytes:
        return b"".join([piece async for piece in self.objects.read(key)])

    async def fact(self, effect: Any, *args: Any, **kwargs: Any) -> None:
        """Applies a fact of another service, as the consumer does."""
        await self.database.write(lambda tx: effect(tx, OURS, *args, **kwargs))


def make(folder: Path, **settings: Any) -> World:
    clock = ManualClock()
    config = ArtifactsConfig(public_base_url=BASE, **settings)
    database = connect(
        f"sqlite:///{folder}/artifacts.db",
        metadata=tables.metadata,
        migrations=MIGRATIONS,
        clock=clock,
        service="artifacts",
    )
    objects = connect_objects(
        f"file://{folder}/objects?base_url={BASE}", key=b"k" * 32, clock=clock
    )
    rows, files, jobs = InputsRepository(), ArtifactsRepository(), KnownJobs()
    common: dict[str, Any] = {"database": database, "objects": objects, "config": config}
    ids = IdSource(clock)
    return World(
        clock,
        database,
        objects,
        config,
        jobs,
        InputSlots(**common, repository=rows, ids=ids),
        Inputs(**common, repository=rows),
        Uploads(**common, repository=files, ids=ids),
        Downloads(**common, repository=files, jobs=jobs),
        Sweeper(**common, inputs=rows, artifacts=files, clock=clock),
    )


def announced(name: str, data: bytes) -> Announcement:
    return Announcement(name, len(data), hashlib.sha256(data).hexdigest())


def attempt(number: int = 1, job_id: str = "job_a", task: int = 0) -> Writer:
    return Writer(OURS, job_id, number, task)
