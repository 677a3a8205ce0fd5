"""The contract's answers as tables: each field, and what may stand in it.

A table names what must be there; further fields are ours to add and are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Rule = Callable[[Any], bool]
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
STATUSES = ("pending", "queued", "assigned", "running", "completed", "failed", "rejected")
PHASES = (
    *("submitted", "queued", "waiting_for_capacity", "provider_provisioning", "worker_assigned"),
    *("container_starting", "runtime_preparation", "image_download", "workload_execution"),
    *("running", "cleanup", "terminal"),
)


def text(value: Any) -> bool:
    return isinstance(value, str)


def word(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def time(value: Any) -> bool:
    return isinstance(value, str) and bool(_TIME.fullmatch(value))


def table(value: Any) -> bool:
    return isinstance(value, dict)


def url(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("http")


def sha256(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{64}", value))


def or_null(rule: Any) -> Rule:
    return lambda value: value is None or (rule(value) if callable(rule) else fits(value, rule))


def one_of(*words: Any) -> Rule:
    return lambda value: value in words


def ident(prefix: str) -> Rule:
    pattern = re.compile(rf"{prefix}_[0-9A-HJKMNP-TV-Z]{{26}}")
    return lambda value: isinstance(value, str) and bool(pattern.fullmatch(value))


def list_of(rule: Any, at_least: int = 0) -> Rule:
    def check(value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) >= at_least
            and all(rule(item) if callable(rule) else fits(item, rule) for item in value)
        )

    return check


def fits(value: Any, rules: Mapping[str, Any]) -> bool:
    return not problems(value, rules)


def problems(value: Any, rules: Mapping[str, Any], path: str = "") -> list[str]:
    """Every field that is missing or wrong, by its path."""
    if not isinstance(value, dict):
        return [f"{path or 'answer'} is {value!r}, not an object"]
    found = []
    for name, rule in rules.items():
        where = f"{path}.{name}" if path else name
        if name not in value:
            found.append(f"{where} is missing")
        elif isinstance(rule, Mapping):
            found += problems(value[name], rule, where)
        elif not rule(value[name]):
            found.append(f"{where} is {value[name]!r}")
    return found


STATUS = one_of(*STATUSES, "cancelled")
JOB_ID, INPUT_ID, ARTIFACT_ID = ident("job"), ident("inp"), ident("art")

SLOT = {
    "upload": {
        "input_id": INPUT_ID,
        "filename": word,
        "method": one_of("PUT"),
        "upload_url": url,
        "headers": table,
        "token": word,
        "expires_at": time,
        "complete_url": url,
    }
}
INPUT = {
    "input_id": INPUT_ID,
    "filename": word,
    "content_type": word,
    "kind": word,
    "status": one_of("pending", "uploaded", "expired"),
    "ready": flag,
    "mount_path": word,
    "size_bytes": or_null(whole),
    "created_at": time,
    "uploaded_at": or_null(time),
}
INPUTS = {"inputs": list_of(INPUT), "next_cursor": or_null(word), "has_more": flag}
ARTIFACT = {
    "artifact_id": ARTIFACT_ID,
    "job_id": JOB_ID,
    "filename": word,
    "content_type": word,
    "size_bytes": whole,
    "status": one_of("pending", "ready", "failed"),
    "ready": flag,
    "created_at": time,
    "uploaded_at": or_null(time),
}
DOWNLOAD = {"artifact": ARTIFACT, "url": url, "expires_at": time}
CHECK = {
    "severity": word,
    "status": word,
    "code": word,
    "field": text,
    "message": word,
    "action": text,
}
ESTIMATE = {
    "available": flag,
    "routed_gpu_tier": text,
    "likely_gpu_type": text,
    "estimated_hourly_rate_usd": number,
    "estimated_cost_min_usd": number,
    "estimated_cost_max_usd": number,
    "estimated_queue_wait_min_sec": whole,
    "estimated_queue_wait_max_sec": whole,
    "estimated_start_time_min": or_null(time),
    "estimated_start_time_max": or_null(time),
    "constraints_relaxed": list_of(text),
    "warnings": list_of(text),
    "classification": {
        "workload_type": text,
        "requires_gpu": flag,
        "acceleration_requirement": one_of(
            "gpu_required", "gpu_preferred", "cpu_only", "unspecified"
        ),
    },
    "routing": {"route_status": text, "selected_route_source": text},
    "capacity": {
        "live_capacity_available": flag,
        "live_candidate_count": whole,
        "managed_capacity_available": flag,
        "managed_profile_count": whole,
        "estimate_source": text,
    },
    "capacity_status": {
        "availability": one_of("available", "limited", "unavailable", "unknown"),
        "immediate_capacity_confirmed": flag,
    },
    "screening": {
        "status": word,
        "can_submit": flag,
        "checks": list_of(CHECK, 1),
        "fixes": list_of(text),
    },
}
ARTIFACT_CONTRACT = {
    "expected_artifacts": list_of({"path": word, "filename": word, "required": flag}),
    "automatic_collection_dir": one_of("/workspace/artifacts"),
}
SUBMITTED = {
    "job_id": JOB_ID,
    "id": JOB_ID,
    "status": one_of("queued"),
    "queued_at": time,
    "execution_route": one_of("standard_managed"),
    "route_reason": word,
    "artifact_contract": ARTIFACT_CONTRACT,
}
JOB = {
    "job_id": JOB_ID,
    "id": JOB_ID,
    "name": word,
    "image": word,
    "workload_type": word,
    "status": STATUS,
    "phase": one_of(*PHASES),
    "execution_phase": one_of(*PHASES),
    "status_message": text,
    "phase_started_at": time,
    "phase_last_updated_at": time,
    "wait_duration_seconds": whole,
    "delayed_start": flag,
    "delay_reason": or_null({"code": word, "message": word}),
    "scheduling": {"state": one_of(*PHASES), "worker_assigned": flag, "delayed_start": flag},
    "artifacts_ready": flag,
    "retry_count": whole,
    "created_at": time,
    "queued_at": or_null(time),
    "started_at": or_null(time),
    "completed_at": or_null(time),
    "billing": {"final_cost_usd": or_null(number), "currency": one_of("USD")},
    "cost_usd": or_null(number),
    "metadata": table,
}
JOBS = {
    "jobs": list_of(JOB),
    "limit": whole,
    "next_cursor": or_null(word),
    "has_more": flag,
}
EVENT = {
    "id": word,
    "job_id": JOB_ID,
    "type": word,
    "phase": one_of(*PHASES),
    "title": word,
    "message": word,
    "source": word,
    "level": word,
    "created_at": time,
    "sequence": whole,
}
EVENTS = {
    "job_id": JOB_ID,
    "status": STATUS,
    "phase": one_of(*PHASES),
    "items": list_of(EVENT, 1),
    "generated_at": time,
}
AVAILABILITY = {"state": one_of("available", "delayed", "partial_loss", "truncated", "unsupported")}
RUNTIME = {
    "job_id": JOB_ID,
    "status": STATUS,
    "execution_mode": one_of("batch_command"),
    "image": word,
    "command": text,
    "args": list_of(text),
    "exit_code": or_null(whole),
    "timed_out": flag,
    "started_at": or_null(time),
    "finished_at": or_null(time),
    "stdout_tail": text,
    "stderr_tail": text,
    "runtime_availability": {"exit_code": AVAILABILITY},
    "diagnostics": list_of(text),
}
LOG_ITEM = {
    "entry_id": whole,
    "source": word,
    "category": word,
    "stream": one_of("stdout", "stderr", "system"),
    "message": text,
    "created_at": time,
}
LOGS = {
    "job_id": JOB_ID,
    "status": STATUS,
    "items": list_of(LOG_ITEM),
    "next_cursor": whole,
    "has_more": flag,
    "usage_hint": text,
}
CANCELLED = {"job_id": JOB_ID, "status": one_of("cancelled"), "status_reason": text}
ERROR = {
    "error": {"code": word, "message": word, "details": table},
    "code": word,
    "message": word,
}
