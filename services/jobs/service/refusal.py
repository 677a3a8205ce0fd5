"""From screening to the error that a submit gets."""

from __future__ import annotations

from collections.abc import Mapping

from libs.errors import GridError
from services.jobs.domain.checks import (
    BLOCKED,
    CPU_ONLY,
    INVALID,
    INVALID_ARTIFACT,
    UNSPECIFIED,
    Screening,
)
from services.jobs.errors import (
    AcceleratorUnspecified,
    CpuOnlyUnsupported,
    DraftRefused,
    ExpectedArtifactInvalid,
    ScreeningBlocked,
)

_ERRORS: Mapping[str, type[GridError]] = {
    INVALID: DraftRefused,
    INVALID_ARTIFACT: ExpectedArtifactInvalid,
    BLOCKED: ScreeningBlocked,
    CPU_ONLY: CpuOnlyUnsupported,
    UNSPECIFIED: AcceleratorUnspecified,
}


def refuse(screening: Screening) -> None:
    """Raises the error of the gravest finding; returns when nothing blocks.

    What is wrong with the request comes before what policy says about it.
    """
    order = list(_ERRORS)
    blocking = sorted(screening.errors, key=lambda check: order.index(check.reason))
    if blocking:
        worst = blocking[0]
        raise _ERRORS[worst.reason](worst.sentence, details={"screening": screening.details()})
