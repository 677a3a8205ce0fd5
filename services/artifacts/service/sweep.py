"""What time does: unfinished uploads, retention, and bytes that nobody owns.

Rows move first and objects go after them, so a crash in between leaves an object without a reader
and never a row without its object. Every step can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from libs.clock import Clock
from libs.db import Database, Tx
from libs.errors import StaleWrite
from libs.objects import STAGING
from libs.tenancy import SystemScope, Tenant
from services.artifacts.config import ArtifactsConfig
from services.artifacts.domain import Artifact, ArtifactState, Input, InputState, JobHead
from services.artifacts.repository import ArtifactsRepository, InputsRepository

if TYPE_CHECKING:
    from libs.objects import Objects

_SCOPE = SystemScope("unfinished uploads and retention")


class Sweeper:
    """One pass over everything that is due; a slow loop calls it."""

    def __init__(
        self,
        *,
        database: Database,
        inputs: InputsRepository,
        artifacts: ArtifactsRepository,
        objects: Objects,
        clock: Clock,
        config: ArtifactsConfig,
    ) -> None:
        self._database = database
        self._inputs = inputs
        self._artifacts = artifacts
        self._objects = objects
        self._clock = clock
        self._config = config

    async def sweep(self) -> int:
        """Does all that is due; returns how many things it moved or deleted."""
        moved = 0
        for step in (self.sweep_inputs, self.sweep_artifacts, self.sweep_jobs):
            while found := await step():
                moved += found
        return moved + await self.sweep_staging()

    async def sweep_inputs(self) -> int:
        """Expires inputs that were never completed or not used for long, and deletes those that
        expired a while ago. Returns how many, at most `sweep_rows_max`."""
        now, rows = self._clock.now(), self._config.sweep_rows_max
        due = await self._database.read(lambda tx: self._inputs.due(tx, _SCOPE, now, rows))
        return sum([await self._sweep_input(item) for item in due])

    async def sweep_artifacts(self) -> int:
        """Fails what was announced and never came, and deletes what failed uploads stored."""
        now, rows = self._clock.now(), self._config.sweep_rows_max
        due = await self._database.read(lambda tx: self._artifacts.due(tx, _SCOPE, now, rows))
        return sum([await self._sweep_artifact(artifact) for artifact in due])

    async def sweep_jobs(self) -> int:
        """Hides the artifacts of jobs whose retention is over, and deletes them a while later."""
        now, rows = self._clock.now(), self._config.sweep_rows_max
        due = await self._database.read(lambda tx: self._artifacts.heads_due(tx, _SCOPE, now, rows))
        return sum([await self._sweep_job(head) for head in due])

    async def sweep_staging(self) -> int:
        """Deletes staging objects that no pending row waits for: left by a crash after a commit,
        or sent with a URL that was still good. Returns how many."""
        deleted, after = 0, ""
        while page := await self._objects.list(STAGING, after, self._config.sweep_rows_max):
            keys = [info.key for info in page]
            wanted = await self._pending(keys)
            for key in keys:
                if key not in wanted:
                    await self._objects.delete(key)
                    deleted += 1
            after = keys[-1]
        return deleted

    async def _pending(self, keys: Sequence[str]) -> set[str]:
        return await self._database.read(lambda tx: self._wanted(tx, keys))

    async def _sweep_input(self, item: Input) -> int:
        tenant = Tenant(item.workspace_id)
        if item.state is not InputState.EXPIRED:
            due = self._tombstone()
            return await self._guarded(lambda tx: self._expire(tx, tenant, item, due))
        await self._objects.delete(item.staging_key)
        await self._delete_under(item.final_key(""))
        return await self._guarded(lambda tx: self._inputs.remove(tx, tenant, item))

    def _expire(self, tx: Tx, tenant: Tenant, item: Input, due: datetime) -> None:
        gone = item.expire(due)
        usage = self._inputs.usage(tx, tenant).change(item, gone)
        self._inputs.update(tx, tenant, gone)
        self._inputs.save_usage(tx, tenant, usage)

    async def _sweep_artifact(self, artifact: Artifact) -> int:
        tenant = Tenant(artifact.workspace_id)
        if artifact.state is ArtifactState.PENDING:
            due = self._clock.now()
            failed = artifact.fail(due)
            return await self._guarded(lambda tx: self._artifacts.update(tx, tenant, failed))
        await self._delete(artifact)
        clean = artifact.clean()
        return await self._guarded(lambda tx: self._artifacts.update(tx, tenant, clean))

    async def _sweep_job(self, head: JobHead) -> int:
        tenant = Tenant(head.workspace_id)
        if not head.tombstone:
            buried = head.bury(self._tombstone())
            return await self._guarded(lambda tx: self._artifacts.save_head(tx, tenant, buried))
        owned = await self._database.read(
            lambda tx: self._artifacts.of_job(tx, tenant, head.job_id)
        )
        for artifact in owned:
            await self._delete(artifact)
        return await self._guarded(lambda tx: self._artifacts.remove_job(tx, tenant, head))

    async def _delete(self, artifact: Artifact) -> None:
        await self._objects.delete(artifact.staging_key)
        await self._delete_under(artifact.final_prefix)

    async def _delete_under(self, prefix: str) -> None:
        while page := await self._objects.list(prefix, "", self._config.sweep_rows_max):
            for info in page:
                await self._objects.delete(info.key)

    def _wanted(self, tx: Tx, keys: Sequence[str]) -> set[str]:
        """Those of the staging keys whose row is pending."""
        found = set()
        for key in keys:
            owner = self._owner(tx, key)
            if owner is not None and owner.staging_key == key and owner.state == "pending":
                found.add(key)
        return found

    def _owner(self, tx: Tx, key: str) -> Input | Artifact | None:
        """Whose key it is; ids have no dots."""
        match key.removeprefix(STAGING).split("."):
            case ["input", workspace_id, input_id]:
                return self._inputs.get(tx, Tenant(workspace_id), input_id)
            case ["artifact", workspace_id, job_id, _, _, artifact_id]:
                return self._artifacts.get(tx, Tenant(workspace_id), job_id, artifact_id)
        return None

    async def _guarded(self, work: Callable[[Tx], None]) -> int:
        """1 when it was done; 0 when someone else moved the row, who then knows better."""
        try:
            await self._database.write(work)
        except StaleWrite:
            return 0
        return 1

    def _tombstone(self) -> datetime:
        return self._clock.now() + timedelta(hours=self._config.tombstone_hours)
