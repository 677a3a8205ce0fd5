"""Does a job need a GPU, and how do we know? By what was asked for, not by the name of its image,
except for the markers that CUDA and ROCm images carry by convention."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.jobs.domain.checks import CPU_ONLY, UNSPECIFIED, Report
from services.jobs.domain.draft import Draft, Wishes

GPU_REQUIRED = "gpu_required"
CPU_ONLY_WORK = "cpu_only"
NOT_SAID = "unspecified"
# docs/vram.md lists them for people.
_IMAGE_MARKERS = re.compile(r"cuda|cudnn|rocm|^nvidia/|^nvcr\.io/|/nvidia/")
SAY_GPU = (
    "Send model_size_gb, min_vram_gb, gpu_type, gpu_count or gpu_required, or use a CUDA image."
)


@dataclass(frozen=True, slots=True)
class Classification:
    """What kind of work it is, and why we think so. `confidence` is from 0 to 1."""

    workload_type: str
    acceleration: str
    confidence: float
    reasons: tuple[str, ...]

    @property
    def requires_gpu(self) -> bool:
        """It will be placed on a GPU."""
        return self.acceleration == GPU_REQUIRED


def classify(draft: Draft, wishes: Wishes, workload_type: str) -> Classification:
    """The kind of work. Contradictions are left to `check_acceleration`."""
    asked = gpu_reasons(draft, wishes)
    if draft.gpu_required is False or wishes.gpu_count == 0:
        said = "gpu_required is false" if draft.gpu_required is False else "gpu_count is 0"
        return Classification(workload_type, CPU_ONLY_WORK, 1.0, (f"{said}.",))
    if asked:
        return Classification(workload_type, GPU_REQUIRED, 1.0, asked)
    if _IMAGE_MARKERS.search(draft.image.strip().lower()):
        why = "The image carries a CUDA or ROCm marker."
        return Classification(workload_type, GPU_REQUIRED, 0.8, (why,))
    return Classification(workload_type, NOT_SAID, 0.3, ("Nothing says whether it needs a GPU.",))


def gpu_reasons(draft: Draft, wishes: Wishes) -> tuple[str, ...]:
    """The fields that ask for a GPU, as sentences."""
    found = (
        ("gpu_required is true.", draft.gpu_required is True),
        ("model_size_gb was given.", bool(draft.model_size_gb)),
        ("min_vram_gb was given.", bool(wishes.min_vram_gb)),
        ("gpu_type was given.", bool(wishes.gpu_type)),
        ("gpu_count was given.", bool(wishes.gpu_count)),
        ("gpu_class was given.", bool(wishes.gpu_class)),
        ("preferred_gpu_family was given.", bool(wishes.preferred_gpu_family)),
    )
    return tuple(sentence for sentence, there in found if there)


def check_acceleration(
    draft: Draft, wishes: Wishes, found: Classification, cpu_policy: str, report: Report
) -> None:
    """Contradictions, and the policy on work without a GPU."""
    hard = draft.gpu_required or wishes.gpu_type or wishes.gpu_count or wishes.min_vram_gb
    if found.acceleration == CPU_ONLY_WORK and hard:
        report.error(
            "GPU_CONTRADICTION",
            "gpu_required",
            "the job asks for a GPU and says that it needs none",
            "Leave out gpu_required = false and gpu_count = 0, or the fields that ask for a GPU.",
        )
    elif cpu_policy != "strict":
        return
    elif found.acceleration == CPU_ONLY_WORK:
        report.error(
            CPU_ONLY,
            "gpu_required",
            "work that needs no GPU is not accepted by this grid",
            f"{SAY_GPU} An operator can accept CPU work with cpu_policy = allow.",
            reason=CPU_ONLY,
        )
    elif found.acceleration == NOT_SAID:
        report.error(
            UNSPECIFIED,
            "",
            f"the job does not say whether it needs a GPU. {SAY_GPU}",
            SAY_GPU,
            reason=UNSPECIFIED,
        )
