"""GPU models by the name a driver gives. The data are in catalogue.toml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.scheduling.domain import Gpu

GIB = 1 << 30
MICROS = 1_000_000
_MEMORY_TOLERANCE = 0.15
_WORD = re.compile(r"[a-z]+[0-9]+[a-z]*|[0-9]+[a-z]*|[a-z]+")
# Tiers of cards the catalogue does not know, by their memory in GiB.
_TIERS = ((20, "entry"), (40, "mid"), (80, "high"))


@dataclass(frozen=True, slots=True)
class Model:
    """What a GPU is. `speed` is relative (TFLOPS); `price` is the typical one, micro-USD per hour,
    0 when unknown."""

    gpu_type: str
    family: str
    vendor: str
    gpu_class: str
    tier: str
    memory_bytes: int
    speed: float
    price: int

    def answers(self, gpu_type: str) -> bool:
        """True when `gpu_type` asks for this model or its family."""
        return gpu_type in (self.gpu_type, self.family)


@dataclass(frozen=True, slots=True)
class _Line:
    model: Model
    words: tuple[frozenset[str], ...]
    memory_gib: float | None


class Catalogue:
    """Read-only after construction."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        """`data` is the parsed catalogue.toml."""
        self._lines = [_line(each) for each in data["gpu"]]
        self._known: dict[tuple[str, int, str], Model] = {}

    def identify(self, gpu: Gpu) -> Model:
        """The model of a card; a card that is not listed gets a model made from its own name."""
        key = (gpu.name, gpu.memory_bytes, gpu.vendor)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._identify(gpu)
        return found

    def _identify(self, gpu: Gpu) -> Model:
        words = _words(gpu.name)
        gib = gpu.memory_bytes / GIB
        for line in self._lines:
            if any(wanted <= words for wanted in line.words) and _close(gib, line.memory_gib):
                return line.model
        name = "-".join(_WORD.findall(gpu.name.lower().replace("simulated", ""))) or "unknown"
        tier = next((tier for limit, tier in _TIERS if gib < limit), "extreme")
        return Model(name, name, gpu.vendor.lower(), "", tier, gpu.memory_bytes, max(gib, 1.0), 0)

    def cheapest(
        self, *, memory_min: int, gpu_type: str, gpu_class: str, vendor: str
    ) -> Model | None:
        """The typically cheapest listed model that answers; for estimates without a node."""
        fitting = [
            model
            for model in self.models()
            if model.memory_bytes >= memory_min
            and (not gpu_type or model.answers(gpu_type))
            and gpu_class in ("", model.gpu_class)
            and vendor in ("", model.vendor)
        ]
        return min(fitting, key=lambda model: (model.price, model.gpu_type), default=None)

    def models(self) -> Iterator[Model]:
        """All listed models."""
        return (line.model for line in self._lines)


def _line(data: Mapping[str, Any]) -> _Line:
    model = Model(
        gpu_type=data["type"],
        family=data["family"],
        vendor=data["vendor"],
        gpu_class=data["class"],
        tier=data["tier"],
        memory_bytes=int(data["memory_gib"] * GIB),
        speed=float(data["tflops"]),
        price=round(data["usd_per_hour"] * MICROS),
    )
    lists: Sequence[Sequence[str]] = data["match"]
    return _Line(model, tuple(frozenset(words) for words in lists), data.get("memory"))


def _words(name: str) -> frozenset[str]:
    """Words of a driver's name, digits kept with their letters: `A100-SXM4-80GB` has `a100`."""
    lower = name.lower()
    parts = set(_WORD.findall(lower))
    # `MI250X` must answer to `mi250`, `RTX4090` to `4090`.
    parts |= {match for part in parts for match in re.findall(r"^[a-z]+[0-9]+|[0-9]+", part)}
    return frozenset(parts)


def _close(gib: float, wanted: float | None) -> bool:
    return wanted is None or abs(gib - wanted) <= wanted * _MEMORY_TOLERANCE
