"""EstimateJob: what a submit of the same body would come to. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from libs.errors import Conflict, GridError, InvalidRequest, NotFound
from libs.tenancy import Tenant
from services.jobs.domain.checks import PASSED, Check, Screening
from services.jobs.domain.draft import Draft
from services.jobs.domain.estimate import RunTime, run_time
from services.jobs.domain.inspect import Inspection
from services.jobs.domain.quote import Quote
from services.jobs.service.inspection import inspected
from services.jobs.service.ports import Tools


@dataclass(frozen=True, slots=True)
class Estimate:
    """An answer to "what if"."""

    inspection: Inspection
    screening: Screening
    quote: Quote
    run_time: RunTime
    now: datetime

    @property
    def available(self) -> bool:
        """The job could be accepted and placed."""
        return self.screening.can_submit and self.quote.fits


async def estimate_job(
    tools: Tools, tenant: Tenant, draft: Draft, violations: tuple[tuple[str, str], ...]
) -> Estimate:
    """Screens, classifies, and asks scheduling."""
    inspection = inspected(tools, draft, violations)
    screening = await _with_inputs(tools, tenant, draft, inspection.screening)
    spec = inspection.spec
    quote = await tools.quotes.quote(tenant, spec)
    times = run_time(spec.workload_type, spec.timeout_seconds)
    return Estimate(inspection, screening, quote, times, tools.clock.now())


async def _with_inputs(
    tools: Tools, tenant: Tenant, draft: Draft, screening: Screening
) -> Screening:
    if not (draft.input_ids or draft.script_ids):
        return screening
    try:
        await tools.inputs.resolve(tenant, draft.input_ids, draft.script_ids)
    except (NotFound, Conflict, InvalidRequest) as error:
        return _plus(screening, error)
    return screening


def _plus(screening: Screening, error: GridError) -> Screening:
    action = "Upload and complete the input, then send its input_id."
    check = Check("error", error.reason, "input_files", error.message, action, error.reason)
    others = tuple(each for each in screening.checks if each.code != PASSED)
    return replace(screening, checks=(*others, check))
