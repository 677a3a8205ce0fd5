"""A job as it was asked for, before anything was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class CallbackDraft:
    """One spelling of the callback fields."""

    url: str = ""
    token: str = field(default="", repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wishes:
    """Routing wishes as one place of the draft gives them: the top, `constraints`, `resources` or
    `routing`. Prices are micro-USD; 0, "" and None mean not given."""

    price_micros_per_hour_max: int = 0
    budget_micros: int = 0
    preferred_gpu_family: str = ""
    avoid_gpu_families: tuple[str, ...] = ()
    region_preference: str = ""
    region_mode: str = ""
    latency_priority: str = ""
    cost_priority: str = ""
    priority: str = ""
    optimize_for: str = ""
    gpu_type: str = ""
    gpu_class: str = ""
    gpu_vendor: str = ""
    gpu_count: int | None = None
    min_vram_gb: float | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """The body of estimate and submit. `wishes` come in order of rank: the first that gives a value
    counts."""

    name: str = ""
    image: str = ""
    workload_type: str = ""
    client_id: str = ""
    template: str = ""
    command: tuple[str, ...] = ()
    command_is_text: bool = False
    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    input_ids: tuple[str, ...] = ()
    script_ids: tuple[str, ...] = ()
    expected_artifacts: tuple[str, ...] = ()
    callback: CallbackDraft = CallbackDraft()
    nested_callback: CallbackDraft = CallbackDraft()
    metadata: dict[str, Any] | None = None
    notes: str = ""
    model_size_gb: float | None = None
    batch_size: int | None = None
    precision: str = ""
    disk_gb: float | None = None
    gpu_required: bool | None = None
    timeout_seconds: int | None = None
    registry_credential_id: str = ""
    huggingface_credential_id: str = ""
    launch_plan_id: str = ""
    wishes: tuple[Wishes, ...] = (Wishes(),)
