"""Requests of people into drafts."""

from __future__ import annotations

import hashlib
import hmac

from google.protobuf.json_format import MessageToDict
from junglegrid.jobs.v1 import job_draft_pb2 as pb

from services.jobs.domain.draft import CallbackDraft, Draft, Wishes
from services.jobs.domain.states import Status


def draft(found: pb.JobDraft) -> Draft:
    """The body of estimate and submit as it came."""
    nested = found.callback
    return Draft(
        name=found.name,
        image=found.image,
        workload_type=found.workload_type,
        client_id=found.id,
        template=found.template_slug,
        command=tuple(found.command),
        command_is_text=found.command_is_text,
        args=tuple(found.args),
        environment=dict(found.environment),
        input_ids=tuple(ref.input_id for ref in found.input_files),
        script_ids=tuple(ref.input_id for ref in found.script_files),
        expected_artifacts=tuple(found.expected_artifacts),
        callback=CallbackDraft(
            found.callback_url, found.callback_auth_token, dict(found.callback_metadata)
        ),
        nested_callback=CallbackDraft(nested.url, nested.auth_token, dict(nested.metadata)),
        metadata=MessageToDict(found.metadata) if found.HasField("metadata") else None,
        notes=found.notes,
        model_size_gb=found.model_size_gb if found.HasField("model_size_gb") else None,
        batch_size=found.batch_size if found.HasField("batch_size") else None,
        precision=found.precision,
        disk_gb=found.disk_gb if found.HasField("disk_gb") else None,
        gpu_required=found.gpu_required if found.HasField("gpu_required") else None,
        timeout_seconds=found.timeout_seconds if found.HasField("timeout_seconds") else None,
        registry_credential_id=found.registry_credential_id,
        huggingface_credential_id=found.huggingface_credential_id,
        launch_plan_id=found.launch_plan_id,
        wishes=_wishes(found),
    )


def _wishes(found: pb.JobDraft) -> tuple[Wishes, ...]:
    """The places of routing wishes, by rank."""
    places = [_top(found)]
    if found.HasField("constraints"):
        places.append(_nested(found.constraints))
    if found.HasField("resources"):
        given = found.resources
        count = given.gpu_count if given.HasField("gpu_count") else None
        places.append(Wishes(gpu_type=given.gpu, gpu_count=count, gpu_vendor=given.gpu_vendor))
    if found.HasField("routing"):
        places.append(
            Wishes(optimize_for=found.routing.preference, budget_micros=found.routing.max_cost_usd)
        )
    return tuple(places)


def _top(found: pb.JobDraft) -> Wishes:
    return Wishes(
        price_micros_per_hour_max=found.max_price_per_hour,
        preferred_gpu_family=found.preferred_gpu_family,
        avoid_gpu_families=tuple(found.avoid_gpu_families),
        region_preference=found.region_preference,
        region_mode=found.region_mode,
        latency_priority=found.latency_priority,
        cost_priority=found.cost_priority,
        priority=found.priority,
        optimize_for=found.optimize_for,
        gpu_type=found.gpu_type,
        gpu_class=found.gpu_class,
        gpu_count=found.gpu_count if found.HasField("gpu_count") else None,
        min_vram_gb=found.min_vram_gb if found.HasField("min_vram_gb") else None,
    )


def _nested(found: pb.ConstraintsDraft) -> Wishes:
    return Wishes(
        price_micros_per_hour_max=found.max_price_per_hour,
        preferred_gpu_family=found.preferred_gpu_family,
        avoid_gpu_families=tuple(found.avoid_gpu_families),
        region_preference=found.region_preference,
        region_mode=found.region_mode,
        latency_priority=found.latency_priority,
        cost_priority=found.cost_priority,
        priority=found.priority,
        gpu_type=found.gpu_type,
        gpu_class=found.gpu_class,
        gpu_count=found.gpu_count if found.HasField("gpu_count") else None,
        min_vram_gb=found.min_vram_gb if found.HasField("min_vram_gb") else None,
    )


def request_hash(found: pb.JobDraft, key: bytes) -> bytes:
    """A keyed hash of the body: it tells bodies apart, and tells nothing of the secrets in them."""
    return hmac.digest(key, found.SerializeToString(deterministic=True), hashlib.sha256)


def status_filter(word: str) -> Status | None:
    """The status that a list is asked for; None for all."""
    if not word:
        return None
    return Status.CANCELLED if word == "canceled" else Status(word)
