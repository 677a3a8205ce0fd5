"""Heads of jobs and their artifacts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from libs.db import Bulk, Tx
from libs.errors import StaleWrite
from libs.tenancy import SystemScope, Tenant
from services.artifacts.domain import Artifact, ArtifactState, JobHead
from services.artifacts.tables import artifacts, job_heads

_HEAD_KEY = (job_heads.c.workspace_id == bindparam("w"), job_heads.c.job_id == bindparam("j"))
_HEAD = select(job_heads).where(*_HEAD_KEY)
_HEAD_VALUES = [column.name for column in job_heads.c if not column.primary_key]
_HEAD_INSERT = Bulk(insert(job_heads), *_HEAD_VALUES, "workspace_id", "job_id")
_HEAD_UPDATE = Bulk(
    update(job_heads)
    .where(*_HEAD_KEY, job_heads.c.version == bindparam("v"))
    .values({name: bindparam(name) for name in _HEAD_VALUES}),
    *_HEAD_VALUES,
    *("w", "j", "v"),
)
_HEAD_DELETE = delete(job_heads).where(*_HEAD_KEY, job_heads.c.version == bindparam("v"))
_HEADS_DUE = (
    select(job_heads)
    .where(job_heads.c.due_time <= bindparam("now"))
    .order_by(job_heads.c.due_time)
    .limit(bindparam("n"))
)
_OF_JOB = (artifacts.c.workspace_id == bindparam("w"), artifacts.c.job_id == bindparam("j"))
_ALL = select(artifacts).where(*_OF_JOB)
_OF_ATTEMPT = _ALL.where(artifacts.c.attempt == bindparam("a"))
_LIST = _OF_ATTEMPT.order_by(artifacts.c.filename, artifacts.c.task_index)
_NAMED = _OF_ATTEMPT.where(
    artifacts.c.task_index == bindparam("t"), artifacts.c.filename == bindparam("f")
)
_GET = _ALL.where(artifacts.c.artifact_id == bindparam("i"))
_COLUMNS = [column.name for column in artifacts.c]
_INSERT = Bulk(insert(artifacts), *_COLUMNS)
_UPDATE = Bulk(
    update(artifacts)
    .where(
        *_OF_JOB, artifacts.c.artifact_id == bindparam("i"), artifacts.c.version == bindparam("v")
    )
    .values(
        state=bindparam("to"),
        size_bytes=bindparam("size"),
        sha256=bindparam("digest"),
        ready_time=bindparam("ready"),
        due_time=bindparam("due"),
        version=bindparam("next"),
    ),
    *("to", "size", "digest", "ready", "due", "w", "j", "i", "v", "next"),
)
_FAIL = (
    update(artifacts)
    .where(*_OF_JOB, artifacts.c.state == ArtifactState.PENDING.value)
    .values(
        state=ArtifactState.FAILED.value,
        due_time=bindparam("due"),
        version=artifacts.c.version + 1,
    )
)
_FAIL_THROUGH = _FAIL.where(artifacts.c.attempt <= bindparam("a"))
_FAIL_TASK = _FAIL.where(
    or_(
        artifacts.c.attempt < bindparam("a"),
        and_(artifacts.c.attempt == bindparam("a"), artifacts.c.task_index == bindparam("t")),
    )
)
_DUE = (
    select(artifacts)
    .where(artifacts.c.due_time <= bindparam("now"))
    .order_by(artifacts.c.due_time)
    .limit(bindparam("n"))
)
_DELETE = delete(artifacts).where(*_OF_JOB)


class _Heads:
    """The heads of one unit of work: each is read and written once, however many facts it gets."""

    def __init__(self) -> None:
        self.now: dict[tuple[str, str], JobHead | None] = {}
        self.changed: dict[tuple[str, str], JobHead] = {}

    def write(self, tx: Tx) -> None:
        """Writes those that were changed over the versions that were read; raises StaleWrite when
        one of those is gone."""
        new = [head for head in self.changed.values() if not head.version]
        old = [head for head in self.changed.values() if head.version]
        try:
            tx.execute_bulk(_HEAD_INSERT, [(*_head_row(head), *_key(head)) for head in new])
        except IntegrityError:
            raise StaleWrite from None
        rows = [(*_head_row(head), *_key(head), head.version) for head in old]
        if tx.execute_bulk(_HEAD_UPDATE, rows) != len(old):
            raise StaleWrite


class ArtifactsRepository:
    """Heads and artifacts. Every method names whose rows it may touch."""

    def head(self, tx: Tx, tenant: Tenant, job_id: str) -> JobHead | None:
        """What is known of the job; None when it was never heard of."""
        heads = tx.memo(_Heads, _Heads)
        key = (tenant.workspace_id, job_id)
        if key not in heads.now:
            row = tx.execute(_HEAD, {"w": tenant.workspace_id, "j": job_id}).one_or_none()
            heads.now[key] = None if row is None else _head(row)
        return heads.now[key]

    def save_head(self, tx: Tx, tenant: Tenant, head: JobHead) -> None:
        """Writes, at the end of the unit, over the version that was read; the unit raises
        StaleWrite when that is gone."""
        heads = tx.memo(_Heads, _Heads)
        key = (tenant.workspace_id, head.job_id)
        if not heads.changed:
            tx.before_commit(lambda: heads.write(tx))
        heads.now[key] = heads.changed[key] = head

    def heads_due(self, tx: Tx, scope: SystemScope, now: datetime, limit: int) -> list[JobHead]:
        """Final jobs of any workspace that retention has to look at, longest due first."""
        return [_head(row) for row in tx.execute(_HEADS_DUE, {"now": now, "n": limit})]

    def remove_job(self, tx: Tx, tenant: Tenant, head: JobHead) -> None:
        """Deletes the head, as it was read, and all artifacts; raises StaleWrite."""
        where = {"w": tenant.workspace_id, "j": head.job_id, "v": head.version}
        _touched(tx.execute(_HEAD_DELETE, where))
        tx.execute(_DELETE, {"w": tenant.workspace_id, "j": head.job_id})

    def get(self, tx: Tx, tenant: Tenant, job_id: str, artifact_id: str) -> Artifact | None:
        """The job's artifact of this id."""
        keys = {"w": tenant.workspace_id, "j": job_id, "i": artifact_id}
        row = tx.execute(_GET, keys).one_or_none()
        return None if row is None else _artifact(row)

    def named(
        self, tx: Tx, tenant: Tenant, job_id: str, task: tuple[int, int], filename: str
    ) -> Artifact | None:
        """The artifact that a task, (attempt, task_index), has announced under this name."""
        keys = {"w": tenant.workspace_id, "j": job_id, "a": task[0], "t": task[1], "f": filename}
        row = tx.execute(_NAMED, keys).one_or_none()
        return None if row is None else _artifact(row)

    def of_attempt(self, tx: Tx, tenant: Tenant, job_id: str, attempt: int) -> list[Artifact]:
        """All artifacts of one attempt, by filename."""
        keys = {"w": tenant.workspace_id, "j": job_id, "a": attempt}
        return [_artifact(row) for row in tx.execute(_LIST, keys)]

    def of_job(self, tx: Tx, tenant: Tenant, job_id: str) -> list[Artifact]:
        """All artifacts of all attempts."""
        keys = {"w": tenant.workspace_id, "j": job_id}
        return [_artifact(row) for row in tx.execute(_ALL, keys)]

    def add(self, tx: Tx, tenant: Tenant, artifact: Artifact) -> None:
        """Inserts; raises StaleWrite when the name was taken meanwhile."""
        row = [tenant.workspace_id, *[getattr(artifact, name) for name in _COLUMNS[1:]]]
        try:
            tx.execute_bulk(_INSERT, [row])
        except IntegrityError:
            raise StaleWrite from None

    def update(self, tx: Tx, tenant: Tenant, artifact: Artifact) -> None:
        """Writes over the version that was read; raises StaleWrite when that is gone, as it is
        after its attempt was sealed or became stale: both fail what is pending."""
        row = (
            *(artifact.state.value, artifact.size_bytes, artifact.sha256),
            *(artifact.ready_time, artifact.due_time),
            *(tenant.workspace_id, artifact.job_id, artifact.artifact_id),
            *(artifact.version, artifact.version + 1),
        )
        if tx.execute_bulk(_UPDATE, [row]) != 1:
            raise StaleWrite

    def fail_through(
        self, tx: Tx, tenant: Tenant, job_id: str, attempt: int, due_time: datetime
    ) -> None:
        """Fails what is pending of this attempt and all before it."""
        keys = {"w": tenant.workspace_id, "j": job_id, "a": attempt, "due": due_time}
        tx.execute(_FAIL_THROUGH, keys)

    def fail_task(
        self, tx: Tx, tenant: Tenant, job_id: str, task: tuple[int, int], due_time: datetime
    ) -> None:
        """Fails what is pending of one (attempt, task_index), and of all attempts before it."""
        keys = {"w": tenant.workspace_id, "j": job_id, "a": task[0], "t": task[1], "due": due_time}
        tx.execute(_FAIL_TASK, keys)

    def due(self, tx: Tx, scope: SystemScope, now: datetime, limit: int) -> list[Artifact]:
        """Artifacts of any workspace that the sweeper has to look at, longest due first."""
        return [_artifact(row) for row in tx.execute(_DUE, {"now": now, "n": limit})]


def _touched(result: Any) -> None:
    if result.rowcount != 1:
        raise StaleWrite


def _head(row: Any) -> JobHead:
    values = dict(row._mapping)
    values["sealed_tasks"] = frozenset(values["sealed_tasks"])
    return JobHead(**values)


def _key(head: JobHead) -> tuple[str, str]:
    return head.workspace_id, head.job_id


def _head_row(head: JobHead) -> tuple[Any, ...]:
    """The values in the order of `_HEAD_VALUES`."""
    changed = {"sealed_tasks": sorted(head.sealed_tasks), "version": head.version + 1}
    return tuple(
        [changed[name] if name in changed else getattr(head, name) for name in _HEAD_VALUES]
    )


def _artifact(row: Any) -> Artifact:
    values = dict(row._mapping)
    values["state"] = ArtifactState(values["state"])
    return Artifact(**values)
