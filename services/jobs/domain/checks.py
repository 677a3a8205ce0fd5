"""What screening found, in the contract's shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

INVALID = "INVALID_REQUEST"
INVALID_ARTIFACT = "INVALID_EXPECTED_ARTIFACT"
CPU_ONLY = "CPU_ONLY_WORKLOAD_UNSUPPORTED"
UNSPECIFIED = "ACCELERATOR_REQUIREMENT_UNSPECIFIED"
BLOCKED = "JOB_SCREENING_BLOCKED"
PASSED = "SCREENING_PASSED"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `severity` is info, warning or error; `reason` is the error that a submit of the
    same draft gets, empty for findings that do not block."""

    severity: str
    code: str
    field: str
    message: str
    action: str
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What is wrong and what to do, for those who read nothing but an error's message."""
        if not self.action or self.action in self.message:
            return self.message
        return f"{self.message}. {self.action}"

    @property
    def status(self) -> str:
        """The contract's word: passed, warning or failed."""
        return {"error": "failed", "warning": "warning"}.get(self.severity, "passed")


@dataclass(frozen=True, slots=True)
class Screening:
    """All findings of one draft."""

    checks: tuple[Check, ...]

    @property
    def errors(self) -> tuple[Check, ...]:
        """The findings that block."""
        return tuple(check for check in self.checks if check.severity == "error")

    @property
    def can_submit(self) -> bool:
        """A submit of the same body would be accepted."""
        return not self.errors

    @property
    def status(self) -> str:
        """`passed`, `warning` or `blocked`."""
        if not self.can_submit:
            return "blocked"
        warned = any(check.severity == "warning" for check in self.checks)
        return "warning" if warned else "passed"

    @property
    def fixes(self) -> tuple[str, ...]:
        """What to change, one sentence each."""
        return tuple(dict.fromkeys(check.action for check in self.errors if check.action))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The sentences of the warnings."""
        return tuple(check.message for check in self.checks if check.severity == "warning")

    def details(self) -> dict[str, Any]:
        """JSON for `details.screening` of an error."""
        return {
            "status": self.status,
            "can_submit": self.can_submit,
            "checks": [
                {
                    "severity": check.severity,
                    "status": check.status,
                    "code": check.code,
                    "field": check.field,
                    "message": check.message,
                    "action": check.action,
                }
                for check in self.checks
            ],
            "fixes": list(self.fixes),
        }


@dataclass(slots=True)
class Report:
    """Collects findings while a draft is read."""

    found: list[Check] = field(default_factory=list)

    def error(
        self, code: str, field_name: str, message: str, action: str = "", *, reason: str = INVALID
    ) -> None:
        """The draft cannot be submitted as it is."""
        self.found.append(Check("error", code, field_name, message, action, reason))

    def warn(self, code: str, field_name: str, message: str, action: str = "") -> None:
        """Something that its sender should know; it does not block."""
        self.found.append(Check("warning", code, field_name, message, action))

    def blame(self, violations: Iterable[tuple[str, str]]) -> None:
        """Broken field rules, as (field, message)."""
        for name, message in violations:
            text = f"{name}: {message}" if name else message
            self.error("FIELD_RULE", name, text, f"Correct {name or 'the request'}.")

    def screening(self) -> Screening:
        """The findings, or the one that says that there were none."""
        if not self.found:
            message = "The job passed validation and screening."
            return Screening((Check("info", PASSED, "", message, ""),))
        return Screening(tuple(self.found))
