"""Artifacts for people: what a job has left, and signed downloads."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from libs.db import Database, Tx
from libs.tenancy import Tenant
from services.artifacts.config import ArtifactsConfig
from services.artifacts.domain import Artifact, ArtifactState
from services.artifacts.errors import ArtifactNotFound, ArtifactNotReady
from services.artifacts.repository import ArtifactsRepository
from services.artifacts.service.ports import Jobs

if TYPE_CHECKING:
    from libs.objects import Objects


@dataclass(frozen=True, slots=True)
class Download:
    """An artifact and its signed GET."""

    artifact: Artifact
    url: str = field(repr=False)
    expire_time: datetime


class Downloads:
    """Reads artifacts. Those of an attempt that was followed by a newer one do not show."""

    def __init__(
        self,
        *,
        database: Database,
        repository: ArtifactsRepository,
        jobs: Jobs,
        objects: Objects,
        config: ArtifactsConfig,
    ) -> None:
        self._database = database
        self._repository = repository
        self._jobs = jobs
        self._objects = objects
        self._config = config

    async def list_artifacts(self, tenant: Tenant, job_id: str) -> list[Artifact]:
        """What the newest attempt has announced, by filename. Raises NotFound."""
        found = await self._database.read(lambda tx: self._shown(tx, tenant, job_id))
        if found is None:
            # Not heard of yet: its owner knows, so that reads do not depend on the bus.
            await self._jobs.get_ref(tenant, job_id)
        return found or []

    async def create_download(self, tenant: Tenant, job_id: str, artifact_id: str) -> Download:
        """A signed GET. Raises ArtifactNotFound and ArtifactNotReady."""
        artifact = await self._database.read(
            lambda tx: self._shown_one(tx, tenant, job_id, artifact_id)
        )
        if artifact is None:
            raise ArtifactNotFound(
                "no such artifact of this job; GET /v1/jobs/{job_id}/artifacts lists them",
                details={"artifact_id": artifact_id[:64]},
            )
        if not artifact.ready:
            raise _not_ready(artifact)
        request = self._objects.sign_get(
            artifact.final_key,
            filename=artifact.basename,
            content_type=artifact.content_type,
            expires_seconds=self._config.download_url_seconds,
        )
        return Download(artifact, request.url, request.expires_time)

    def _shown(self, tx: Tx, tenant: Tenant, job_id: str) -> list[Artifact] | None:
        head = self._repository.head(tx, tenant, job_id)
        if head is None:
            return None
        if head.tombstone or not head.artifacts:
            return []
        return self._repository.of_attempt(tx, tenant, job_id, head.attempt)

    def _shown_one(self, tx: Tx, tenant: Tenant, job_id: str, artifact_id: str) -> Artifact | None:
        head = self._repository.head(tx, tenant, job_id)
        found = self._repository.get(tx, tenant, job_id, artifact_id)
        if head is None or found is None or head.tombstone or found.attempt != head.attempt:
            return None
        return found


def _not_ready(artifact: Artifact) -> ArtifactNotReady:
    details = {"artifact_id": artifact.artifact_id, "status": artifact.state.value}
    if artifact.state is ArtifactState.FAILED:
        return ArtifactNotReady(
            f"the upload of {artifact.filename} failed; it will not become ready", details=details
        )
    return ArtifactNotReady(
        f"{artifact.filename} is still being uploaded; try again in a moment",
        details=details,
        retry_after_seconds=1.0,
    )
