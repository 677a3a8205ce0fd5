"""How a node brings the files that an attempt left.

    CreateUpload   the row, and a signed PUT to its staging key
    (PUT)          to the store, past this service
    CommitUpload   compare size and digest, copy to the final key, note READY, delete the staging
                   object

A grant proves which attempt the node may write for; the head of the job says whether that attempt
still counts. Whoever seals an attempt or begins a newer one fails what is pending in the same
transaction, so the guarded write of READY needs no second look at the head.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from libs import failpoints
from libs.db import Database, Tx, retry_stale
from libs.errors import InvalidRequest
from libs.ids import IdSource
from libs.objects import ObjectChanged, ObjectMissing
from libs.telemetry import logger
from libs.tenancy import Tenant
from services.artifacts.config import ArtifactsConfig
from services.artifacts.domain import (
    Announcement,
    Artifact,
    ArtifactState,
    JobHead,
    Refusal,
    Writer,
    artifact_path,
    guess_content_type,
)
from services.artifacts.errors import (
    ArtifactConflict,
    ArtifactLimit,
    ArtifactMismatch,
    ArtifactNotFound,
    ArtifactNotUploaded,
    AttemptSealed,
    StaleAttempt,
)
from services.artifacts.repository import ArtifactsRepository

if TYPE_CHECKING:
    from libs.objects import ObjectInfo, Objects, SignedRequest

_log = logger("artifacts")
AFTER_COPY = failpoints.register(
    "artifacts.commit.after_copy_before_row",
    "an artifact is under its final key, the row says pending",
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SIZE_MAX = 1 << 62


@dataclass(frozen=True, slots=True)
class Upload:
    """Where to put the bytes; no request when they are there already."""

    artifact: Artifact
    request: SignedRequest | None


class Uploads:
    """Announces and commits artifacts, and follows which attempts may."""

    def __init__(
        self,
        *,
        database: Database,
        repository: ArtifactsRepository,
        objects: Objects,
        ids: IdSource,
        config: ArtifactsConfig,
    ) -> None:
        self._database = database
        self._repository = repository
        self._objects = objects
        self._ids = ids
        self._config = config

    async def create_upload(self, writer: Writer, file: Announcement) -> Upload:
        """The artifact of this name, new or known, and a fresh signed PUT for it. Raises
        InvalidName, InvalidRequest, StaleAttempt, AttemptSealed, ArtifactLimit and
        ArtifactConflict."""
        name = artifact_path(file.filename)
        self._check_file(file)
        work = self._announcing(writer, name, file)
        artifact = await retry_stale(lambda: self._database.write(work))
        return Upload(artifact, None if artifact.ready else self._sign(artifact))

    async def commit_upload(self, writer: Writer, artifact_id: str) -> Artifact:
        """Keeps the bytes for good; READY when this returns. Idempotent. Raises ArtifactNotFound,
        ArtifactNotUploaded, ArtifactMismatch, StaleAttempt and AttemptSealed."""
        return await retry_stale(lambda: self._commit(writer, artifact_id))

    def apply_queued(self, tx: Tx, tenant: Tenant, job_id: str, attempt: int) -> None:
        """An attempt exists: what older ones have not committed will never be. The first attempt
        has none before it, so it is not worth a row."""
        if attempt <= 1:
            return
        head = self._head(tx, tenant, job_id)
        self._save(tx, tenant, head, head.begin(attempt))

    def apply_closed(
        self, tx: Tx, tenant: Tenant, job_id: str, attempt: int, task_index: int
    ) -> None:
        """The lease of one task closed: nothing more is taken from it."""
        head = self._head(tx, tenant, job_id)
        after = head.seal_task(attempt, task_index)
        if head.artifacts and after != head:
            task = (attempt, task_index)
            self._repository.fail_task(tx, tenant, job_id, task, self._cleaning(tx))
        self._save(tx, tenant, head, after)

    def apply_finished(
        self, tx: Tx, tenant: Tenant, job_id: str, attempt: int, *, lease_open: bool
    ) -> None:
        """The job is final: retention begins, and unless an attempt is still being torn down
        nothing more is taken."""
        head = self._head(tx, tenant, job_id)
        due = tx.now() + timedelta(days=self._config.retention_days)
        self._save(tx, tenant, head, head.finish(attempt, due, lease_open=lease_open))

    def _announcing(
        self, writer: Writer, name: str, file: Announcement
    ) -> Callable[[Tx], Artifact]:
        def work(tx: Tx) -> Artifact:
            tenant, job_id = writer.tenant, writer.job_id
            head = self._head(tx, tenant, job_id)
            _check_fence(head, writer)
            after = head.begin(writer.attempt)
            task = (writer.attempt, writer.task_index)
            known = None
            if after.artifacts:
                known = self._repository.named(tx, tenant, job_id, task, name)
            if known is None:
                artifact = self._new(writer, name, file, tx)
                after = after.announce(file.size_bytes)
                self._repository.add(tx, tenant, artifact)
            else:
                artifact = _again(known, file)
                if artifact == known:
                    return known
                after = after.resize(known.size_bytes, file.size_bytes)
                self._repository.update(tx, tenant, artifact)
            self._check_room(after)
            self._save(tx, tenant, head, after)
            return artifact

        return work

    async def _commit(self, writer: Writer, artifact_id: str) -> Artifact:
        artifact = await self._database.read(lambda tx: self._find(tx, writer, artifact_id))
        if artifact.ready:
            return artifact
        try:
            await self._copy(writer, artifact)
        except ObjectMissing:
            raise _no_bytes(artifact) from None
        except ObjectChanged:
            raise _no_bytes(artifact, "the bytes changed while they were being kept") from None
        await AFTER_COPY.hit_async()
        done = await self._database.write(lambda tx: self._ready(tx, writer.tenant, artifact))
        await self._clean(artifact.staging_key)
        return done

    async def _copy(self, writer: Writer, artifact: Artifact) -> None:
        found = await self._objects.head(artifact.staging_key)
        if found is None:
            raise _no_bytes(artifact)
        if not artifact.same_bytes(found.size, found.sha256):
            await self._database.write(lambda tx: self._fail(tx, writer.tenant, artifact))
            await self._clean(artifact.staging_key)
            raise _mismatch(artifact, found)
        await self._objects.copy(artifact.staging_key, artifact.final_key, if_match_etag=found.etag)

    def _find(self, tx: Tx, writer: Writer, artifact_id: str) -> Artifact:
        """Only what was announced under the same attempt and task is the writer's. What is pending
        is of an attempt that may write, or else it would have been failed."""
        found = self._repository.get(tx, writer.tenant, writer.job_id, artifact_id)
        own = (writer.attempt, writer.task_index)
        if found is None or (found.attempt, found.task_index) != own:
            raise ArtifactNotFound("this attempt has announced no such artifact")
        if found.state is ArtifactState.FAILED:
            _check_fence(self._head(tx, writer.tenant, writer.job_id), writer)
            raise _failed(found)
        return found

    def _ready(self, tx: Tx, tenant: Tenant, artifact: Artifact) -> Artifact:
        done = artifact.make_ready(tx.now())
        self._repository.update(tx, tenant, done)
        return done

    def _fail(self, tx: Tx, tenant: Tenant, artifact: Artifact) -> None:
        self._repository.update(tx, tenant, artifact.fail(self._cleaning(tx)))

    def _new(self, writer: Writer, name: str, file: Announcement, tx: Tx) -> Artifact:
        now = tx.now()
        return Artifact(
            writer.tenant.workspace_id,
            writer.job_id,
            self._ids.new("art"),
            writer.attempt,
            writer.task_index,
            name,
            guess_content_type(name),
            file.size_bytes,
            file.sha256,
            create_time=now,
            due_time=now + timedelta(hours=self._config.pending_hours),
        )

    def _sign(self, artifact: Artifact) -> SignedRequest:
        return self._objects.sign_put(
            artifact.staging_key,
            content_type=artifact.content_type,
            # A URL allows at least one byte; commit compares the exact size.
            size_max=max(1, artifact.size_bytes),
            expires_seconds=self._config.upload_url_seconds,
            # Each URL is good for one PUT, and each call gives a new URL.
            single_use_id=self._ids.ulid(),
        )

    def _head(self, tx: Tx, tenant: Tenant, job_id: str) -> JobHead:
        found = self._repository.head(tx, tenant, job_id)
        return found or JobHead(tenant.workspace_id, job_id)

    def _save(self, tx: Tx, tenant: Tenant, before: JobHead, after: JobHead) -> None:
        through = after.closed_through
        if before.artifacts and through > before.closed_through:
            due = self._cleaning(tx)
            self._repository.fail_through(tx, tenant, after.job_id, through, due)
        if after != before or not before.version:
            self._repository.save_head(tx, tenant, after)

    def _cleaning(self, tx: Tx) -> datetime:
        """When what a failed upload left goes: not before its last URL is dead."""
        return tx.now() + timedelta(seconds=self._config.upload_url_seconds)

    def _check_file(self, file: Announcement) -> None:
        if not 0 <= file.size_bytes <= _SIZE_MAX:
            raise InvalidRequest("size_bytes must not be negative")
        if not _SHA256.fullmatch(file.sha256):
            raise InvalidRequest("sha256 must be 64 lower-case hex digits")
        if file.size_bytes > self._config.artifact_bytes_max:
            raise _limit("bytes in one artifact", self._config.artifact_bytes_max)

    def _check_room(self, head: JobHead) -> None:
        config = self._config
        if head.artifacts > config.artifacts_per_job_max:
            raise _limit("artifacts", config.artifacts_per_job_max)
        if head.size_bytes > config.artifact_bytes_per_job_max:
            raise _limit("bytes of artifacts", config.artifact_bytes_per_job_max)

    async def _clean(self, key: str) -> None:
        try:
            await self._objects.delete(key)
        except Exception:
            # The artifact's fate is noted already; the sweeper finds what is left in staging.
            _log.exception("staging object not deleted", key=key)


def _check_fence(head: JobHead, writer: Writer) -> None:
    refusal = head.refusal(writer.attempt, writer.task_index)
    if refusal is Refusal.STALE_ATTEMPT:
        raise StaleAttempt(f"attempt {writer.attempt} was followed by attempt {head.attempt}")
    if refusal is Refusal.SEALED:
        raise AttemptSealed(f"attempt {writer.attempt} is over and takes no more artifacts")


def _again(known: Artifact, file: Announcement) -> Artifact:
    same = known.same_bytes(file.size_bytes, file.sha256)
    if known.state is ArtifactState.FAILED:
        raise _failed(known)
    if known.ready and not same:
        raise ArtifactConflict(
            f"{known.filename} is stored already, with other bytes; an artifact never changes"
        )
    return known if same else known.announce(file.size_bytes, file.sha256)


def _failed(artifact: Artifact) -> ArtifactConflict:
    return ArtifactConflict(f"{artifact.filename} has failed and can not be uploaded any more")


def _no_bytes(artifact: Artifact, why: str = "no bytes have come") -> ArtifactNotUploaded:
    return ArtifactNotUploaded(f"{artifact.filename}: {why}; create an upload and send them again")


def _mismatch(artifact: Artifact, found: ObjectInfo) -> ArtifactMismatch:
    return ArtifactMismatch(
        f"{artifact.filename} was announced with {artifact.size_bytes} bytes and another digest "
        f"than the {found.size} bytes that came; it is not kept",
    )


def _limit(what: str, limit: int) -> ArtifactLimit:
    return ArtifactLimit(
        f"a job may keep {limit} {what}; write fewer or smaller files",
        details={"limit": limit, "of": what},
    )
