"""Jobs, attempts, activities and secrets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    Select,
    bindparam,
    delete,
    insert,
    null,
    select,
    tuple_,
    update,
)

from libs.db import Bulk, Tx
from libs.errors import StaleWrite
from libs.tenancy import Scope, SystemScope, Tenant
from services.jobs.domain.job import Activity, Attempt, Job
from services.jobs.domain.states import Status
from services.jobs.repository.keys import KeyRows
from services.jobs.repository.rows import (
    activity_of,
    activity_values,
    attempt_of,
    attempt_values,
    job_of,
    job_values,
    moving_values,
)
from services.jobs.tables import activities, attempts, job_secrets, jobs

_WS: BindParameter[str] = bindparam("w")
_JOB: BindParameter[str] = bindparam("j")
_ADD_JOB = Bulk(insert(jobs), *(column.name for column in jobs.c))
_GET = select(jobs).where(jobs.c.workspace_id == _WS, jobs.c.job_id == _JOB)
_GET_ANY = select(jobs).where(jobs.c.job_id == _JOB)
_MOVING = (
    "version",
    "status",
    "phase",
    "attempt",
    "updated_time",
    "submit_until",
    "facts",
    "activities",
    "view",
)
_UPDATE_JOB = Bulk(
    update(jobs)
    .where(jobs.c.workspace_id == _WS, jobs.c.job_id == _JOB, jobs.c.version == bindparam("v"))
    .values({name: bindparam(name, type_=jobs.c[name].type) for name in _MOVING}),
    *_MOVING,
    "w",
    "j",
    "v",
)
_CLEAR_CLIENT_ID = (
    update(jobs).where(jobs.c.workspace_id == _WS, jobs.c.job_id == _JOB).values(client_id=None)
)
_ORPHANS = (
    select(jobs)
    .where(jobs.c.submit_until.is_not(None), jobs.c.submit_until < bindparam("before"))
    .order_by(jobs.c.submit_until)
    .limit(bindparam("n"))
)
_CLIENT = select(jobs.c.job_id).where(
    jobs.c.workspace_id == _WS, jobs.c.client_id == bindparam("c")
)
_ADD_ACTIVITIES = Bulk(insert(activities), *(column.name for column in activities.c))
_ACTIVITIES = (
    select(activities)
    .where(activities.c.workspace_id == _WS, activities.c.job_id == _JOB)
    .order_by(activities.c.position)
)
_ADD_ATTEMPT = Bulk(insert(attempts), *(column.name for column in attempts.c))
_ATTEMPT_MOVING = (
    "state",
    "is_open",
    "claimed_time",
    "started_time",
    "exited_time",
    "finished_time",
    "view",
)
_UPDATE_ATTEMPT = Bulk(
    update(attempts)
    .where(
        attempts.c.workspace_id == _WS,
        attempts.c.job_id == _JOB,
        attempts.c.attempt == bindparam("n"),
        attempts.c.lease_id == bindparam("l"),
    )
    .values({name: bindparam(name, type_=attempts.c[name].type) for name in _ATTEMPT_MOVING}),
    *_ATTEMPT_MOVING,
    "w",
    "j",
    "n",
    "l",
)
_ATTEMPTS = (
    select(attempts)
    .where(attempts.c.workspace_id == _WS, attempts.c.job_id == _JOB)
    .order_by(attempts.c.attempt)
)
_ADD_SECRETS = insert(job_secrets)
_SECRETS = select(job_secrets).where(
    job_secrets.c.workspace_id == _WS, job_secrets.c.job_id == _JOB
)
_DROP_ENVIRONMENT = (
    update(job_secrets)
    .where(job_secrets.c.workspace_id == _WS, job_secrets.c.job_id == _JOB)
    .values(environment=null())
)
_REMOVALS = tuple(
    delete(table).where(table.c.workspace_id == _WS, table.c.job_id == _JOB)
    for table in (jobs, activities, attempts, job_secrets)
)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the list of jobs, newest first."""

    created_time: datetime
    job_id: str


def _pages(*, after: bool, by_status: bool) -> Select[Any]:
    query = select(jobs).where(jobs.c.workspace_id == _WS)
    if by_status:
        query = query.where(jobs.c.status == bindparam("s"))
    if after:
        # A comparison of rows, not of columns: an index finds the place and counts nothing.
        place = tuple_(bindparam("t", type_=jobs.c.created_time.type), _JOB)
        query = query.where(tuple_(jobs.c.created_time, jobs.c.job_id) < place)
    order = query.order_by(jobs.c.created_time.desc(), jobs.c.job_id.desc())
    return order.limit(bindparam("n"))


_PAGES = {
    (after, by_status): _pages(after=after, by_status=by_status)
    for after in (False, True)
    for by_status in (False, True)
}


class JobsRepository(KeyRows):
    """All rows of the service. Methods with a Tenant touch that workspace only."""

    def add(self, tx: Tx, tenant: Tenant, job: Job) -> None:
        """A new job."""
        _same(tenant, job.workspace_id)
        values = job_values(job)
        tx.execute_bulk(_ADD_JOB, [[values[column.name] for column in jobs.c]])

    def get(self, tx: Tx, scope: Scope, job_id: str) -> Job | None:
        """The job, if the scope may see it."""
        if isinstance(scope, Tenant):
            row = tx.execute(_GET, {"w": scope.workspace_id, "j": job_id}).first()
        else:
            row = tx.execute(_GET_ANY, {"j": job_id}).first()
        return None if row is None else job_of(row)

    def update(self, tx: Tx, scope: Scope, job: Job) -> None:
        """Writes what changed, if nobody else did since `job` was read; raises StaleWrite
        otherwise. The row gets the next version."""
        if isinstance(scope, Tenant):
            _same(scope, job.workspace_id)
        self.update_all(tx, [job])

    def update_all(self, tx: Tx, found: Sequence[Job]) -> None:
        """`update` for many jobs: all of them, or StaleWrite."""
        rows = []
        for job in found:
            values = moving_values(job) | {"version": job.version + 1}
            keys = (job.workspace_id, job.job_id, job.version)
            rows.append([*(values[name] for name in _MOVING), *keys])
        if tx.execute_bulk(_UPDATE_JOB, rows) != len(rows):
            raise StaleWrite(", ".join(job.job_id for job in found[:3]))

    def remove(self, tx: Tx, tenant: Tenant, job_id: str) -> None:
        """Deletes a job that was never accepted, with all that belongs to it."""
        for statement in _REMOVALS:
            tx.execute(statement, {"w": tenant.workspace_id, "j": job_id})
        self.remove_keys(tx, tenant, job_id)

    def client_job(self, tx: Tx, tenant: Tenant, client_id: str) -> str | None:
        """The job that has this client id."""
        keys = {"w": tenant.workspace_id, "c": client_id}
        found: str | None = tx.execute(_CLIENT, keys).scalar()
        return found

    def free_client_id(self, tx: Tx, tenant: Tenant, job_id: str) -> None:
        """Lets another job take the client id of a job that came to nothing."""
        tx.execute(_CLEAR_CLIENT_ID, {"w": tenant.workspace_id, "j": job_id})

    def page(
        self, tx: Tx, tenant: Tenant, after: Position | None, status: Status | None, limit: int
    ) -> list[Job]:
        """Jobs, newest first, behind `after`."""
        keys: dict[str, Any] = {"w": tenant.workspace_id, "n": limit}
        if after is not None:
            keys |= {"t": after.created_time, "j": after.job_id}
        if status is not None:
            keys["s"] = status.value
        query = _PAGES[after is not None, status is not None]
        return [job_of(row) for row in tx.execute(query, keys)]

    def orphans(self, tx: Tx, scope: SystemScope, before: datetime, limit: int) -> list[Job]:
        """Submits whose time was up before `before`, in all workspaces."""
        return [job_of(row) for row in tx.execute(_ORPHANS, {"before": before, "n": limit})]

    def add_activities(self, tx: Tx, found: Iterable[tuple[Job, Activity]]) -> None:
        """Adds lifecycle events."""
        rows = [tuple(activity_values(job, each).values()) for job, each in found]
        tx.execute_bulk(_ADD_ACTIVITIES, rows)

    def activities(self, tx: Tx, tenant: Tenant, job_id: str) -> list[Activity]:
        """The lifecycle events of a job, in order."""
        keys = {"w": tenant.workspace_id, "j": job_id}
        return [activity_of(row) for row in tx.execute(_ACTIVITIES, keys)]

    def add_attempts(self, tx: Tx, found: Iterable[Attempt]) -> None:
        """New attempts. The index refuses a second open one of a job."""
        tx.execute_bulk(_ADD_ATTEMPT, [tuple(attempt_values(each).values()) for each in found])

    def update_attempts(self, tx: Tx, found: Sequence[Attempt]) -> None:
        """Writes what changed; raises StaleWrite when an attempt has another lease."""
        rows = []
        for each in found:
            values = attempt_values(each)
            keys = (each.workspace_id, each.job_id, each.number, each.lease_id)
            rows.append([*(values[name] for name in _ATTEMPT_MOVING), *keys])
        if tx.execute_bulk(_UPDATE_ATTEMPT, rows) != len(rows):
            raise StaleWrite(", ".join(each.job_id for each in found[:3]))

    def attempts(self, tx: Tx, tenant: Tenant, job_id: str) -> list[Attempt]:
        """All attempts of a job, in order."""
        keys = {"w": tenant.workspace_id, "j": job_id}
        return [attempt_of(row) for row in tx.execute(_ATTEMPTS, keys)]

    def add_secrets(
        self, tx: Tx, tenant: Tenant, job_id: str, environment: bytes | None, token: bytes | None
    ) -> None:
        """Sealed secrets of a job."""
        values = {
            "workspace_id": tenant.workspace_id,
            "job_id": job_id,
            "environment": environment,
            "callback_token": token,
        }
        tx.execute(_ADD_SECRETS, values)

    def drop_environments(self, tx: Tx, found: Iterable[Job]) -> None:
        """Deletes the sealed environments of jobs that will not be launched any more."""
        for job in found:
            tx.execute(_DROP_ENVIRONMENT, {"w": job.workspace_id, "j": job.job_id})

    def secrets(self, tx: Tx, tenant: Tenant, job_id: str) -> tuple[bytes | None, bytes | None]:
        """(environment, callback token), sealed."""
        row = tx.execute(_SECRETS, {"w": tenant.workspace_id, "j": job_id}).first()
        return (None, None) if row is None else (row.environment, row.callback_token)


def _same(tenant: Tenant, workspace_id: str) -> None:
    if tenant.workspace_id != workspace_id:
        raise PermissionError("a job of another workspace was to be written")
