"""Routing wishes: merged from their four places, checked, normalised."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

from services.jobs.domain.checks import Report
from services.jobs.domain.draft import Draft, Wishes
from services.jobs.domain.spec import Constraints

GPU_COUNT_MAX = 64
VRAM_GB_MAX = 4096
FAMILIES_MAX = 32
WORD_MAX = 64
LEVELS = frozenset({"low", "balanced", "high"})
CHOICES = {
    "region_mode": frozenset({"prefer", "strict"}),
    "latency_priority": LEVELS,
    "cost_priority": LEVELS,
    "priority": frozenset({"low_latency", "low_cost", "balanced", "high_reliability"}),
    "optimize_for": frozenset({"cost", "speed", "balanced"}),
    "gpu_class": frozenset({"consumer", "datacenter"}),
    "gpu_vendor": frozenset({"nvidia", "amd"}),
}
_FREE = ("preferred_gpu_family", "region_preference", "gpu_type")
_SPACES = re.compile(r"[\s_]+")
_BRANDS = re.compile(r"^(?:(?:nvidia|amd|geforce|tesla|quadro|radeon|instinct)-)+")
_ANY = frozenset({"any", "auto", "none", "default"})
_NAMES = tuple(item.name for item in fields(Wishes))


def merge_wishes(draft: Draft, report: Report) -> Wishes:
    """One set of wishes: for each, the first place that gives it counts. Values that are wrong are
    reported and dropped."""
    found: dict[str, Any] = {}
    for place in draft.wishes:
        for name in _NAMES:
            value = getattr(place, name)
            if name not in found and value is not None and value != "" and value != ():
                if name in ("price_micros_per_hour_max", "budget_micros") and value == 0:
                    continue
                found[name] = value
    return _checked(Wishes(**found), report)


def _checked(wishes: Wishes, report: Report) -> Wishes:
    words: dict[str, Any] = {}
    for name, allowed in CHOICES.items():
        word = getattr(wishes, name).strip().lower()
        words[name] = word
        if word and word not in allowed:
            words[name] = ""
            report.error(
                "CHOICE",
                name,
                f"{name} must be one of {', '.join(sorted(allowed))}; it is '{word[:40]}'",
                f"Send one of the words for {name}, or leave it out.",
            )
    for name in _FREE:
        words[name] = _free(name, getattr(wishes, name), report)
    words["gpu_type"] = gpu_word(words["gpu_type"])
    words["preferred_gpu_family"] = gpu_word(words["preferred_gpu_family"])
    families = [_free("avoid_gpu_families", each, report) for each in wishes.avoid_gpu_families]
    if len(families) > FAMILIES_MAX:
        report.error(
            "AVOID_FAMILIES", "avoid_gpu_families", f"at most {FAMILIES_MAX} families may be given"
        )
    words["avoid_gpu_families"] = tuple(dict.fromkeys(filter(None, map(gpu_word, families))))
    _check_numbers(wishes, report)
    return replace(wishes, **words)


def _check_numbers(wishes: Wishes, report: Report) -> None:
    for name in ("price_micros_per_hour_max", "budget_micros"):
        if getattr(wishes, name) < 0:
            shown = "max_price_per_hour" if name.startswith("price") else "max_cost_usd"
            report.error("NEGATIVE", shown, f"{shown} must not be negative")
    if wishes.gpu_count is not None and not 0 <= wishes.gpu_count <= GPU_COUNT_MAX:
        report.error("GPU_COUNT", "gpu_count", f"gpu_count must be from 0 to {GPU_COUNT_MAX}")
    # Written so that NaN fails too.
    if wishes.min_vram_gb is not None and not 0 <= wishes.min_vram_gb <= VRAM_GB_MAX:
        report.error("MIN_VRAM", "min_vram_gb", f"min_vram_gb must be from 0 to {VRAM_GB_MAX}")


def _free(name: str, value: str, report: Report) -> str:
    if len(value) > WORD_MAX:
        report.error("TOO_LONG", name, f"{name} may have {WORD_MAX} characters")
        return ""
    return region_word(value)


def region_word(text: str) -> str:
    """`US East` and `us_east` are `us-east`; words for "any" are empty."""
    word = _SPACES.sub("-", text.strip().lower())
    return "" if word in _ANY else word


def gpu_word(text: str) -> str:
    """A GPU model or family as nodes are matched by: `NVIDIA GeForce RTX 4090` is `rtx-4090`."""
    return _BRANDS.sub("", region_word(text))


def constraints(wishes: Wishes) -> Constraints:
    """What the planner is told."""
    return Constraints(
        region=wishes.region_preference,
        region_strict=bool(wishes.region_preference) and wishes.region_mode == "strict",
        price_micros_per_hour_max=max(wishes.price_micros_per_hour_max, 0),
        preferred_gpu_family=wishes.preferred_gpu_family,
        avoid_gpu_families=wishes.avoid_gpu_families,
        optimize_for=wishes.optimize_for,
        priority=wishes.priority,
        latency_priority=wishes.latency_priority,
        cost_priority=wishes.cost_priority,
    )
