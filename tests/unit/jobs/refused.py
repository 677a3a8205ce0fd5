"""Drafts that are refused: (name, draft, finding, reason of the error)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.jobs.domain.draft import CallbackDraft, Draft, Wishes
from tests.unit.jobs.world import DRAFT

BARE = replace(DRAFT, model_size_gb=None)


def wish(**found: Any) -> Draft:
    return replace(DRAFT, wishes=(Wishes(**found),))


def flat(url: str = "https://a.example", token: str = "", **metadata: str) -> Draft:
    return replace(DRAFT, callback=CallbackDraft(url, token, metadata))


REFUSED: list[tuple[str, Draft, str, str]] = [
    ("no name", replace(DRAFT, name=" "), "REQUIRED", "INVALID_REQUEST"),
    ("no image", replace(DRAFT, image=""), "REQUIRED", "INVALID_REQUEST"),
    ("no workload", replace(DRAFT, workload_type=""), "REQUIRED", "INVALID_REQUEST"),
    ("workload", replace(DRAFT, workload_type="mining"), "WORKLOAD_TYPE", "INVALID_REQUEST"),
    ("name", replace(DRAFT, name="a\x1b[2J"), "NAME_INVALID", "INVALID_REQUEST"),
    ("image", replace(DRAFT, image="a image"), "IMAGE_INVALID", "INVALID_REQUEST"),
    ("image option", replace(DRAFT, image="--privileged"), "IMAGE_INVALID", "INVALID_REQUEST"),
    ("id", replace(DRAFT, client_id="a\n"), "ID_INVALID", "INVALID_REQUEST"),
    ("template", replace(DRAFT, template="lora"), "TEMPLATE_UNKNOWN", "INVALID_REQUEST"),
    ("plan", replace(DRAFT, launch_plan_id="p"), "LAUNCH_PLAN_UNKNOWN", "INVALID_REQUEST"),
    (
        "registry",
        replace(DRAFT, registry_credential_id="c"),
        "CREDENTIAL_UNKNOWN",
        "INVALID_REQUEST",
    ),
    (
        "hugging face",
        replace(DRAFT, huggingface_credential_id="c"),
        "CREDENTIAL_UNKNOWN",
        "INVALID_REQUEST",
    ),
    (
        "long command",
        replace(DRAFT, command=("x" * 5000,)),
        "COMMAND_TOO_LONG",
        "INVALID_REQUEST",
    ),
    (
        "long args",
        replace(DRAFT, command=("x",), args=("y" * 2048, "z" * 2048)),
        "COMMAND_TOO_LONG",
        "INVALID_REQUEST",
    ),
    ("nul", replace(DRAFT, command=("a\0b",)), "COMMAND_NUL", "INVALID_REQUEST"),
    ("empty word", replace(DRAFT, command=(" ", "b")), "COMMAND_EMPTY", "INVALID_REQUEST"),
    (
        "quotes",
        replace(DRAFT, command=("echo 'a",), command_is_text=True),
        "COMMAND_QUOTES",
        "INVALID_REQUEST",
    ),
    (
        "args alone",
        replace(DRAFT, command=(), args=("a",)),
        "ARGS_WITHOUT_COMMAND",
        "INVALID_REQUEST",
    ),
    (
        "variable",
        replace(DRAFT, environment={"1A": ""}),
        "ENVIRONMENT_NAME",
        "INVALID_REQUEST",
    ),
    (
        "value",
        replace(DRAFT, environment={"A": "x" * 40_000}),
        "ENVIRONMENT_VALUE",
        "INVALID_REQUEST",
    ),
    (
        "environment",
        replace(DRAFT, environment={f"A{n}": "" for n in range(300)}),
        "ENVIRONMENT_TOO_LARGE",
        "INVALID_REQUEST",
    ),
    ("http", flat("http://a.example"), "CALLBACK_URL", "INVALID_REQUEST"),
    ("ftp", flat("ftp://localhost"), "CALLBACK_URL", "INVALID_REQUEST"),
    ("no host", flat("https://"), "CALLBACK_URL", "INVALID_REQUEST"),
    ("user in url", flat("https://a:b@c.example"), "CALLBACK_URL", "INVALID_REQUEST"),
    ("port", flat("https://a.example:99999"), "CALLBACK_URL", "INVALID_REQUEST"),
    ("space in url", flat("https://a.example/ b"), "CALLBACK_URL", "INVALID_REQUEST"),
    ("token", flat(token="a\r\nX: y"), "CALLBACK_TOKEN", "INVALID_REQUEST"),
    ("token only", flat(url="", token="t"), "CALLBACK_URL_MISSING", "INVALID_REQUEST"),
    (
        "17 entries",
        flat(**{f"k{n}": "" for n in range(17)}),
        "CALLBACK_METADATA",
        "INVALID_REQUEST",
    ),
    ("key", flat(**{"a b": ""}), "CALLBACK_METADATA", "INVALID_REQUEST"),
    ("entry", flat(a="x" * 513), "CALLBACK_METADATA", "INVALID_REQUEST"),
    ("precision", replace(DRAFT, precision="fp8"), "PRECISION", "INVALID_REQUEST"),
    ("scripts", replace(DRAFT, script_ids=("a", "b")), "SCRIPT_COUNT", "INVALID_REQUEST"),
    (
        "metadata",
        replace(DRAFT, metadata={"a": "x" * 70_000}),
        "METADATA_TOO_LARGE",
        "INVALID_REQUEST",
    ),
    ("region mode", wish(region_mode="hope"), "CHOICE", "INVALID_REQUEST"),
    ("latency", wish(latency_priority="x"), "CHOICE", "INVALID_REQUEST"),
    ("cost", wish(cost_priority="x"), "CHOICE", "INVALID_REQUEST"),
    ("priority", wish(priority="x"), "CHOICE", "INVALID_REQUEST"),
    ("optimize", wish(optimize_for="x"), "CHOICE", "INVALID_REQUEST"),
    ("class", wish(gpu_class="x"), "CHOICE", "INVALID_REQUEST"),
    ("vendor", wish(gpu_vendor="x"), "CHOICE", "INVALID_REQUEST"),
    ("count", wish(gpu_count=65), "GPU_COUNT", "INVALID_REQUEST"),
    ("vram", wish(min_vram_gb=float("nan")), "MIN_VRAM", "INVALID_REQUEST"),
    ("price", wish(price_micros_per_hour_max=-1), "NEGATIVE", "INVALID_REQUEST"),
    ("budget", wish(budget_micros=-1), "NEGATIVE", "INVALID_REQUEST"),
    ("families", wish(avoid_gpu_families=("a",) * 33), "AVOID_FAMILIES", "INVALID_REQUEST"),
    ("word", wish(region_preference="x" * 65), "TOO_LONG", "INVALID_REQUEST"),
    (
        "contradiction",
        replace(wish(gpu_type="l4"), gpu_required=False),
        "GPU_CONTRADICTION",
        "INVALID_REQUEST",
    ),
    (
        "blocked program",
        replace(DRAFT, command=("/opt/xmrig", "-o", "pool")),
        "JOB_SCREENING_BLOCKED",
        "JOB_SCREENING_BLOCKED",
    ),
    (
        "cpu only",
        replace(BARE, gpu_required=False),
        "CPU_ONLY_WORKLOAD_UNSUPPORTED",
        "CPU_ONLY_WORKLOAD_UNSUPPORTED",
    ),
    (
        "no gpus",
        replace(BARE, wishes=(Wishes(gpu_count=0),)),
        "CPU_ONLY_WORKLOAD_UNSUPPORTED",
        "CPU_ONLY_WORKLOAD_UNSUPPORTED",
    ),
    (
        "not said",
        BARE,
        "ACCELERATOR_REQUIREMENT_UNSPECIFIED",
        "ACCELERATOR_REQUIREMENT_UNSPECIFIED",
    ),
]
