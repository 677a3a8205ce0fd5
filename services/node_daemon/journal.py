"""What a later daemon must know of a lease besides what its runtime keeps. Holds no secret."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.node_daemon import attempt_files


@dataclass(frozen=True, slots=True)
class Plan:
    """What the grid expects of the attempt, and which runtime runs it."""

    expected_artifacts: tuple[str, ...] = ()
    runtime: str = ""


class Journal:
    """One small file per lease. Losing it costs the list of missing artifacts, nothing more, so it
    is not synced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Makes the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def keep(self, lease_id: str, plan: Plan) -> None:
        """Writes the plan of a lease, unless nothing is expected: most jobs cost no file here."""
        if not plan.expected_artifacts:
            return
        attempt_files.write_json(
            self._path(lease_id),
            {"expected_artifacts": list(plan.expected_artifacts), "runtime": plan.runtime},
        )

    def find(self, lease_id: str) -> Plan:
        """The plan of a lease; an empty one when it was lost."""
        found = attempt_files.read_json(self._path(lease_id)) or {}
        return Plan(tuple(found.get("expected_artifacts", ())), str(found.get("runtime", "")))

    def forget(self, lease_id: str) -> None:
        """The lease is over."""
        self._path(lease_id).unlink(missing_ok=True)

    def _path(self, lease_id: str) -> Path:
        return self._folder / f"{lease_id}.json"
