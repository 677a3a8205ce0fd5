"""Screening with the operator's settings."""

from __future__ import annotations

from services.jobs.domain.draft import Draft
from services.jobs.domain.inspect import Defaults, Inspection, inspect
from services.jobs.service.ports import Tools


def inspected(
    tools: Tools, draft: Draft, violations: tuple[tuple[str, str], ...] = ()
) -> Inspection:
    """Everything that is wrong with the draft, or what will be run."""
    config = tools.config
    defaults = Defaults(
        cpu_policy=config.cpu_policy,
        cpu_millis=config.cpu_millis_default,
        memory_bytes=config.memory_bytes_default,
        disk_bytes=config.disk_bytes_default,
        timeout_seconds=config.timeout_seconds_default,
        blocked_words=config.screening_blocked_words,
    )
    return inspect(draft, defaults, violations)
