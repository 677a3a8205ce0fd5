"""Writing one transition down at once: row, activities and facts in one unit of work. Transitions
that leases cause go through working.py."""

from __future__ import annotations

from dataclasses import replace

from libs.db import Tx
from libs.tenancy import Scope
from services.jobs.domain.change import Change
from services.jobs.domain.job import Job
from services.jobs.service.ports import Tools


def save(tools: Tools, tx: Tx, scope: Scope, change: Change) -> Job:
    """Writes all effects of `change` and returns the job as it is now in its row. Raises StaleWrite
    when the row moved since it was read."""
    job = change.job
    if change.changed:
        tools.repository.update(tx, scope, job)
        job = replace(job, version=job.version + 1)
    if change.unseals:
        tools.repository.drop_environments(tx, [job])
    tools.repository.add_activities(tx, [(job, each) for each in change.activities])
    for number, fact in change.told:
        tx.emit(tools.tell(job, number, fact, tx.now()))
    return job
