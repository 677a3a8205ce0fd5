"""From a draft to a spec: everything that is wrong with it, or what will be run."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TypeGuard

from services.jobs.domain.checks import BLOCKED, Report, Screening
from services.jobs.domain.classify import Classification, check_acceleration, classify
from services.jobs.domain.command import normalise_command
from services.jobs.domain.draft import Draft, Wishes
from services.jobs.domain.fields import (
    check_environment,
    check_names,
    normalise_artifacts,
    normalise_callback,
)
from services.jobs.domain.routing import constraints, merge_wishes
from services.jobs.domain.spec import Callback, GpuNeed, Resources, Secrets, Spec
from services.jobs.domain.vram import GB, PARAMETER_BYTES, required_vram_bytes

_WORD = re.compile(r"[a-z0-9]+")
METADATA_BYTES_MAX = 64 * 1024
WORKLOADS = ("inference", "training", "fine-tuning", "batch")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator chose for drafts that do not say."""

    cpu_policy: str
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    timeout_seconds: int
    blocked_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What became of a draft. `spec` is a best effort when screening has errors: good enough for a
    quote, never for a submit."""

    spec: Spec
    secrets: Secrets
    screening: Screening
    classification: Classification


@dataclass(frozen=True, slots=True)
class _Parts:
    command: tuple[str, tuple[str, ...]]
    environment: dict[str, str]
    artifacts: tuple[str, ...]
    callback: Callback | None
    token: str


def inspect(
    draft: Draft, defaults: Defaults, violations: tuple[tuple[str, str], ...] = ()
) -> Inspection:
    """Checks all of a draft. `violations` are field rules found broken at the door, as (field,
    message): estimates report them, submits never get this far."""
    report = Report()
    report.blame(violations)
    _check_required(draft, report)
    _check_refused(draft, report)
    check_names(draft, report)
    wishes = merge_wishes(draft, report)
    workload = _workload(draft)
    parts = _parts(draft, report)
    _check_numbers(draft, report)
    found = classify(draft, wishes, workload)
    check_acceleration(draft, wishes, found, defaults.cpu_policy, report)
    _check_blocked(draft, parts.command, defaults.blocked_words, report)
    needs = _resources(draft, wishes, found, defaults)
    spec = _spec(draft, wishes, parts, needs, defaults)
    secrets = Secrets(parts.environment, parts.token)
    return Inspection(spec, secrets, report.screening(), found)


def _parts(draft: Draft, report: Report) -> _Parts:
    command = normalise_command(draft, report)
    environment = check_environment(draft, report)
    artifacts = normalise_artifacts(draft, report)
    callback, token = normalise_callback(draft, report)
    return _Parts(command, environment, artifacts, callback, token)


def _spec(
    draft: Draft, wishes: Wishes, parts: _Parts, needs: Resources, defaults: Defaults
) -> Spec:
    return Spec(
        name=draft.name.strip(),
        image=draft.image.strip(),
        workload_type=_workload(draft),
        command=parts.command[0],
        args=parts.command[1],
        resources=needs,
        constraints=constraints(wishes),
        timeout_seconds=draft.timeout_seconds or defaults.timeout_seconds,
        budget_micros=max(wishes.budget_micros, 0),
        client_id=draft.client_id,
        expected_artifacts=parts.artifacts,
        callback=parts.callback,
        metadata=draft.metadata,
        notes=draft.notes,
    )


def _workload(draft: Draft) -> str:
    word = draft.workload_type.replace("_", "-")
    return word if word in WORKLOADS else "batch"


def _check_required(draft: Draft, report: Report) -> None:
    given = {
        "name": draft.name.strip(),
        "image": draft.image.strip(),
        "workload_type": draft.workload_type,
    }
    missing = [name for name, value in given.items() if not value]
    if missing:
        report.error(
            "REQUIRED",
            missing[0],
            f"name, image, and workload_type are required; missing: {', '.join(missing)}",
            f"Send {', '.join(missing)}.",
        )
    elif draft.workload_type.replace("_", "-") not in WORKLOADS:
        report.error(
            "WORKLOAD_TYPE",
            "workload_type",
            f"workload_type must be one of {', '.join(WORKLOADS)}",
            "Send one of these words.",
        )


def _check_refused(draft: Draft, report: Report) -> None:
    """Things of the contract that this grid does not offer yet. Ignoring them would be worse."""
    refused = (
        (draft.template, "template_slug", "TEMPLATE_UNKNOWN", "no such template"),
        (draft.launch_plan_id, "launch_plan_id", "LAUNCH_PLAN_UNKNOWN", "no such launch plan"),
        (
            draft.registry_credential_id,
            "registry_credential_id",
            "CREDENTIAL_UNKNOWN",
            "no such registry credential",
        ),
        (
            draft.huggingface_credential_id,
            "huggingface_credential_id",
            "CREDENTIAL_UNKNOWN",
            "no such Hugging Face credential",
        ),
    )
    for value, name, code, problem in refused:
        if value:
            report.error(
                code, name, f"{name} '{value}': {problem} in this workspace", f"Leave out {name}."
            )


def _check_numbers(draft: Draft, report: Report) -> None:
    if draft.precision and draft.precision not in PARAMETER_BYTES:
        words = ", ".join(PARAMETER_BYTES)
        report.error("PRECISION", "precision", f"precision must be one of {words}")
    if draft.metadata and len(json.dumps(draft.metadata)) > METADATA_BYTES_MAX:
        report.error(
            "METADATA_TOO_LARGE", "metadata", f"metadata may have {METADATA_BYTES_MAX} bytes"
        )
    if len(draft.script_ids) > 1:
        report.error(
            "SCRIPT_COUNT",
            "script_files",
            "script_files takes one script",
            "Upload further scripts as inputs and name them in input_files.",
        )


def _check_blocked(
    draft: Draft, command: tuple[str, tuple[str, ...]], blocked: tuple[str, ...], report: Report
) -> None:
    text = " ".join((draft.image, command[0], *command[1])).lower()
    words = set(_WORD.findall(text))
    found = next((word for word in blocked if word in words), None)
    if found is not None:
        report.error(
            BLOCKED,
            "command" if found not in draft.image.lower() else "image",
            f"this grid does not run {found}",
            "Remove it from image, command and args.",
            reason=BLOCKED,
        )


def _resources(
    draft: Draft, wishes: Wishes, found: Classification, defaults: Defaults
) -> Resources:
    disk = math.ceil(draft.disk_gb * GB) if _usable(draft.disk_gb) else defaults.disk_bytes
    gpu = _gpu(draft, wishes, found.workload_type) if found.requires_gpu else None
    return Resources(defaults.cpu_millis, defaults.memory_bytes, disk, gpu)


def _gpu(draft: Draft, wishes: Wishes, workload_type: str) -> GpuNeed:
    count = max(wishes.gpu_count or 1, 1)
    precision = draft.precision if draft.precision in PARAMETER_BYTES else ""
    size = draft.model_size_gb if _usable(draft.model_size_gb) else 0.0
    computed = required_vram_bytes(size, precision, workload_type, draft.batch_size or 1, count)
    asked = math.ceil(wishes.min_vram_gb * GB) if _usable(wishes.min_vram_gb) else 0
    return GpuNeed(
        count=count,
        memory_bytes_min=max(computed, asked),
        gpu_type=wishes.gpu_type,
        gpu_class=wishes.gpu_class,
        vendor=wishes.gpu_vendor,
    )


def _usable(value: float | None) -> TypeGuard[float]:
    """Given, and a number that can be reckoned with; estimates get here with broken ones too."""
    return value is not None and 0 < value <= 1_000_000
