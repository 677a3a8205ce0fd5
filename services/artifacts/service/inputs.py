"""Inputs that are there: listing them, and giving them to jobs and to nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from libs.db import Database, Tx, retry_stale
from libs.tenancy import Tenant
from services.artifacts.config import ArtifactsConfig
from services.artifacts.domain import Input, InputState, Mount, mounts
from services.artifacts.errors import InputNotFound, InputNotReady
from services.artifacts.repository import InputsRepository
from services.artifacts.service.slots import inputs_store

if TYPE_CHECKING:
    from libs.objects import Objects

# A use is noted at most this often: retention is counted in days.
_USE_NOTED = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class InputPage:
    """Inputs, newest first, and where the next page begins ("" after the last)."""

    items: Sequence[Input]
    after: str


@dataclass(frozen=True, slots=True)
class InputGrant:
    """An input with a signed GET for a node."""

    mount: Mount
    url: str = field(repr=False)


class Inputs:
    """Reads inputs for people, for jobs and for nodes."""

    def __init__(
        self,
        *,
        database: Database,
        repository: InputsRepository,
        objects: Objects,
        config: ArtifactsConfig,
    ) -> None:
        self._database = database
        self._repository = repository
        self._objects = objects
        self._config = config

    async def list_job_inputs(self, tenant: Tenant, before: str, limit: int) -> InputPage:
        """At most `limit` inputs older than the input `before`, newest first."""
        size = min(limit or self._config.inputs_page_default, self._config.inputs_page_max)
        found = await self._database.read(
            lambda tx: self._repository.page(tx, tenant, before, size + 1)
        )
        more = len(found) > size
        return InputPage(found[:size], found[size - 1].input_id if more else "")

    async def resolve_inputs(
        self, tenant: Tenant, input_ids: Sequence[str], script_ids: Sequence[str]
    ) -> list[Mount]:
        """What a job that names these inputs will find mounted, in the order sent. Raises
        InputNotFound, InputNotReady and InvalidRequest."""
        ids = [*input_ids, *script_ids]
        found, now = await self._database.read(
            lambda tx: (self._repository.get_many(tx, tenant, ids), tx.now())
        )
        ready = [_ready(found, input_id) for input_id in ids]
        cut = len(input_ids)
        mounted = mounts(ready[:cut], ready[cut:])
        if any(_unnoted(item, now) for item in ready):
            await retry_stale(lambda: self._note_use(tenant, ids))
        return mounted

    async def grant_inputs(self, tenant: Tenant, input_ids: Sequence[str]) -> list[InputGrant]:
        """Signed downloads for a node, in the order sent. Raises InputNotFound and
        InputNotReady."""
        found = await self._database.read(
            lambda tx: self._repository.get_many(tx, tenant, input_ids)
        )
        ready = [_ready(found, input_id) for input_id in input_ids]
        async with inputs_store():
            return [
                self._grant(item, mount)
                for item, mount in zip(ready, mounts(ready, ()), strict=True)
            ]

    def _grant(self, item: Input, mount: Mount) -> InputGrant:
        request = self._objects.sign_get(
            mount.stored.object_key,
            filename=item.filename,
            content_type=item.content_type,
            expires_seconds=self._config.input_grant_seconds,
        )
        return InputGrant(mount, request.url)

    async def _note_use(self, tenant: Tenant, ids: Sequence[str]) -> None:
        def work(tx: Tx) -> None:
            now = tx.now()
            due = now + timedelta(days=self._config.retention_days)
            for item in self._repository.get_many(tx, tenant, ids).values():
                if item.ready and _unnoted(item, now):
                    self._repository.update(tx, tenant, item.use(now, due))

        await self._database.write(work)


def _ready(found: dict[str, Input], input_id: str) -> Input:
    item = found.get(input_id)
    if item is None or item.state is InputState.EXPIRED:
        raise InputNotFound(
            f"no input {input_id[:64]} in this workspace; upload it with POST /v1/job-inputs",
            details={"input_id": input_id[:64]},
        )
    if not item.ready:
        raise InputNotReady(
            f"input {input_id} is not complete; PUT its bytes and call its complete_url first",
            details={"input_id": input_id},
        )
    return item


def _unnoted(item: Input, now: datetime) -> bool:
    return item.used_time is None or now - item.used_time > _USE_NOTED
