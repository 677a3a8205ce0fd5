"""SubmitJob: everything is asked before anything is written; money is held between two commits.

    screening -> keys -> inputs -> Quote -> PENDING + keys -> Reserve -> QUEUED + outbox

A refusal up to Quote leaves nothing; a refusal by Reserve takes the PENDING row back. A process
that dies in between leaves a PENDING row with a time limit: after it the same key finishes the
submit, and if nobody comes, the sweeper voids it. Reserve is idempotent on the job's id, so trying
again is safe.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

from libs import failpoints
from libs.db import Tx, retry_stale
from libs.errors import Code, GridError, StaleWrite
from libs.tenancy import Tenant
from services.jobs.domain.draft import Draft
from services.jobs.domain.inspect import Inspection
from services.jobs.domain.job import Hold, Job
from services.jobs.domain.money import hold_micros, price_ceiling
from services.jobs.domain.moves import queue, take_over
from services.jobs.domain.quote import Quote
from services.jobs.domain.spec import Spec
from services.jobs.domain.states import Status
from services.jobs.domain.submitted import Submitted
from services.jobs.errors import (
    AlreadyFinal,
    ClientIdTaken,
    HoldGone,
    RegionUnavailable,
    SubmitInFlight,
)
from services.jobs.service.inspection import inspected
from services.jobs.service.keys import Request, known
from services.jobs.service.ports import Reserved, Tools
from services.jobs.service.refusal import refuse
from services.jobs.service.saving import save
from services.jobs.service.secrets import seal

_AFTER_PENDING = failpoints.register(
    "jobs.submit.after_pending", "the PENDING row is durable, no credit is held"
)
_AFTER_RESERVE = failpoints.register(
    "jobs.submit.after_reserve", "credit is held, the job is not queued"
)
_AFTER_COMMIT = failpoints.register(
    "jobs.submit.after_commit", "the job is queued, nobody has been answered"
)
# After these nobody knows whether billing holds the credit.
_UNKNOWN = frozenset(
    {
        Code.UNAVAILABLE,
        Code.DEADLINE_EXCEEDED,
        Code.CANCELLED,
        Code.UNKNOWN,
        Code.INTERNAL,
        Code.ABORTED,
    }
)
_running: set[asyncio.Task[Submitted]] = set()


@dataclass(frozen=True, slots=True)
class _Begun:
    """A submit that has its row: either new or taken over; or one that is answered already."""

    job: Job | None
    reply: Submitted | None = None


async def submit_job(
    tools: Tools, tenant: Tenant, draft: Draft, *, idempotency_key: str, request_hash: bytes
) -> Submitted:
    """Accepts a job and answers with what the 202 says."""
    inspection = inspected(tools, draft)
    refuse(inspection.screening)
    request = Request(idempotency_key, draft.client_id, request_hash)
    begun = await _look(tools, tenant, request)
    if begun.job is not None:
        try:
            return await _to_the_end(tools, tenant, request, begun.job)
        except HoldGone:
            # It had been dead for so long that billing gave up on it: the row went, begin anew.
            begun = _Begun(None)
    if begun.reply is not None:
        return begun.reply
    return await _to_the_end(tools, tenant, request, await _plan(tools, tenant, draft, inspection))


async def _to_the_end(
    tools: Tools, tenant: Tenant, request: Request, work: Job | _Plan
) -> Submitted:
    """From here on the work goes on when the caller hangs up: a retry then finds its answer."""
    task = asyncio.create_task(_carry_out(tools, tenant, request, work))
    _running.add(task)
    task.add_done_callback(_running.discard)
    return await asyncio.shield(task)


@dataclass(frozen=True, slots=True)
class _Plan:
    inspection: Inspection
    spec: Spec
    hold: Hold
    waiting: str


async def _plan(tools: Tools, tenant: Tenant, draft: Draft, inspection: Inspection) -> _Plan:
    """Asks all that must be known before something is written."""
    spec = inspection.spec
    if draft.input_ids or draft.script_ids:
        inputs = await tools.inputs.resolve(tenant, draft.input_ids, draft.script_ids)
        spec = replace(spec, inputs=inputs)
    quote = await tools.quotes.quote(tenant, spec)
    if spec.constraints.region_strict and not quote.fits:
        raise RegionUnavailable(
            f"no capacity for the job in region '{spec.constraints.region}':"
            f" {quote.unavailable_reason or 'nothing there fits'}."
            " Send region_mode = prefer, or another region.",
            details={"unavailable_code": quote.unavailable_code},
        )
    hold = hold_for(tools, spec, quote)
    limited = replace(spec.constraints, price_micros_per_hour_max=hold.ceiling)
    waiting = "" if quote.fits else quote.unavailable_reason or "No node that fits is online."
    return _Plan(inspection, replace(spec, constraints=limited), hold, waiting)


def hold_for(tools: Tools, spec: Spec, quote: Quote) -> Hold:
    """The hold that a job needs at these prices; not yet reserved."""
    gpu, config = spec.resources.gpu, tools.config
    fallback = (
        config.gpu_price_ceiling_micros * gpu.count if gpu else config.cpu_price_ceiling_micros
    )
    wished = spec.constraints.price_micros_per_hour_max
    # The price of a GPU that nobody offers now is a guess: held to it, the job would wait for ever
    # beside a node that comes online and asks for more.
    known = quote.price_ceiling if quote.fits else max(quote.price_ceiling, fallback)
    ceiling = price_ceiling(known, wished, fallback)
    amount = hold_micros(ceiling, spec.tasks, spec.timeout_seconds, spec.budget_micros)
    return Hold(ceiling, quote.price or ceiling, amount, "", quote.relaxed)


async def _look(tools: Tools, tenant: Tenant, request: Request) -> _Begun:
    """What earlier requests with these keys have come to."""
    if not request.keyed:
        return _Begun(None)

    def look(tx: Tx) -> Submitted | str | None:
        return known(tools, tx, tenant, request)

    found = await tools.database.read(look)
    if isinstance(found, Submitted):
        return _Begun(None, found)
    if found is None:
        return _Begun(None)
    return await retry_stale(lambda: _take_over(tools, tenant, request))


async def _take_over(tools: Tools, tenant: Tenant, request: Request) -> _Begun:
    """Makes an unfinished submit ours, if its time is up."""

    def take(tx: Tx) -> _Begun:
        found = known(tools, tx, tenant, request)
        if isinstance(found, Submitted):
            return _Begun(None, found)
        job = tools.repository.get(tx, tenant, found) if found is not None else None
        if job is None:
            return _Begun(None)
        now = tx.now()
        if job.status is not Status.PENDING or job.submit_until is None or now < job.submit_until:
            # Most end within a second; one whose process died ends at `submit_until`.
            raise SubmitInFlight(1.0)
        mine = take_over(job, now + timedelta(seconds=tools.config.submit_lease_seconds))
        tools.repository.update(tx, tenant, mine)
        return _Begun(replace(mine, version=mine.version + 1))

    return await tools.database.write(take)


async def _carry_out(
    tools: Tools, tenant: Tenant, request: Request, work: Job | _Plan
) -> Submitted:
    if isinstance(work, Job):
        job = work
    else:
        begun = await retry_stale(lambda: _begin(tools, tenant, request, work))
        if begun.reply is not None:
            return begun.reply
        if begun.job is None:
            raise SubmitInFlight(1.0)
        job = begun.job
    await _AFTER_PENDING.hit_async()
    reserved = await _reserve(tools, tenant, job)
    await _AFTER_RESERVE.hit_async()
    reply = await _finish(tools, tenant, request, job, reserved)
    await _AFTER_COMMIT.hit_async()
    return reply


async def _begin(tools: Tools, tenant: Tenant, request: Request, plan: _Plan) -> _Begun:
    job_id = tools.ids.new("job")
    environment, token = seal(tools, tenant, job_id, plan.inspection.secrets)

    def begin(tx: Tx) -> _Begun:
        found = known(tools, tx, tenant, request)
        if isinstance(found, Submitted):
            return _Begun(None, found)
        if found is not None:
            raise SubmitInFlight(1.0)
        client_id = request.client_id
        if client_id and tools.repository.client_job(tx, tenant, client_id) is not None:
            raise ClientIdTaken(client_id)
        now = tx.now()
        job = Job(
            workspace_id=tenant.workspace_id,
            job_id=job_id,
            spec=plan.spec,
            created_time=now,
            phase_time=now,
            updated_time=now,
            submit_until=now + timedelta(seconds=tools.config.submit_lease_seconds),
            waiting=plan.waiting,
            sealed=environment is not None,
            hold=plan.hold,
        )
        tools.repository.add_keys(tx, tenant, request.rows(job_id, now))
        tools.repository.add(tx, tenant, job)
        if environment or token:
            tools.repository.add_secrets(tx, tenant, job_id, environment, token)
        return _Begun(job)

    return await tools.database.write(begin)


async def _reserve(tools: Tools, tenant: Tenant, job: Job) -> Reserved:
    try:
        return await tools.holds.reserve(tenant, job.job_id, job.hold.amount, job.hold.ceiling)
    except GridError as error:
        unknown = error.code in _UNKNOWN
        await tools.database.write(lambda tx: _back_out(tools, tx, tenant, job, unknown=unknown))
        raise


def _back_out(tools: Tools, tx: Tx, tenant: Tenant, job: Job, *, unknown: bool) -> None:
    """After a refusal nothing is left of the submit. While it is unknown whether the credit is
    held, the row stays, for a retry to finish at once or the sweeper to void."""
    now = tools.repository.get(tx, tenant, job.job_id)
    if now is None or now.version != job.version:
        return
    if unknown:
        tools.repository.update(tx, tenant, take_over(job, tx.now()))
    else:
        tools.repository.remove(tx, tenant, job.job_id)


async def _finish(
    tools: Tools, tenant: Tenant, request: Request, job: Job, reserved: Reserved
) -> Submitted:
    hold = replace(job.hold, amount=reserved.amount_micros, reservation_id=reserved.reservation_id)

    def finish(tx: Tx) -> Submitted | None:
        try:
            queued = save(tools, tx, tenant, queue(job, tx.now(), hold, job.waiting))
        except StaleWrite:
            return None
        reply = Submitted.of(queued)
        if request.keyed:
            tools.repository.answer_keys(tx, tenant, job.job_id, reply.as_json())
        return reply

    reply = await tools.database.write(finish)
    return reply if reply is not None else await _lost(tools, tenant, job)


async def _lost(tools: Tools, tenant: Tenant, job: Job) -> Submitted:
    """Somebody else moved the row while we reserved: a retry that took over, the sweeper, or a
    cancel."""
    now = await tools.database.read(lambda tx: tools.repository.get(tx, tenant, job.job_id))
    if now is not None and now.queued_time is not None:
        return Submitted.of(now)
    if now is not None and now.status is Status.PENDING:
        raise SubmitInFlight(1.0)
    await tools.holds.release(tenant, job.job_id)
    raise AlreadyFinal("the job was cancelled or voided while it was being submitted; submit again")
