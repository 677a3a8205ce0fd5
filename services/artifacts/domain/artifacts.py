"""An artifact: a file that one task of one attempt left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.artifacts.domain.inputs import IllegalMove


class ArtifactState(StrEnum):
    """States of an artifact; the words are the contract's."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"


MOVES: Mapping[ArtifactState, frozenset[ArtifactState]] = {
    ArtifactState.PENDING: frozenset({ArtifactState.READY, ArtifactState.FAILED}),
    ArtifactState.READY: frozenset(),
    ArtifactState.FAILED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Announcement:
    """A file that a node has found."""

    filename: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """`size_bytes` and `sha256` are the node's word while PENDING and checked facts once READY.
    `due_time` is when the sweeper looks at it; None when it has nothing to do there."""

    workspace_id: str
    job_id: str
    artifact_id: str
    attempt: int
    task_index: int
    filename: str
    content_type: str
    size_bytes: int
    sha256: str
    create_time: datetime
    due_time: datetime | None
    state: ArtifactState = ArtifactState.PENDING
    ready_time: datetime | None = None
    version: int = 1

    @property
    def staging_key(self) -> str:
        """Where the node's PUT goes; never downloaded."""
        return f"staging/artifact.{self.workspace_id}.{self.job_id}.{self._name}"

    @property
    def final_key(self) -> str:
        """Where the bytes stay. The digest is part of it, so that an announcement of other bytes
        can never be committed over these."""
        return f"{self.final_prefix}{self.sha256}"

    @property
    def final_prefix(self) -> str:
        """What all its final keys begin with."""
        return f"artifacts/{self.workspace_id}/{self.job_id}/{self._name}."

    @property
    def ready(self) -> bool:
        """It can be downloaded: its bytes exist and are those announced."""
        return self.state is ArtifactState.READY

    @property
    def basename(self) -> str:
        """The last part of its path: what a download is saved as."""
        return self.filename.rpartition("/")[2]

    def same_bytes(self, size_bytes: int, sha256: str) -> bool:
        """It was announced with this size and digest."""
        return self.size_bytes == size_bytes and self.sha256 == sha256

    def announce(self, size_bytes: int, sha256: str) -> Artifact:
        """The same file, announced anew before it was committed, with what it holds now."""
        if self.state is not ArtifactState.PENDING:
            raise IllegalMove(f"artifact {self.state} announced again")
        return replace(self, size_bytes=size_bytes, sha256=sha256)

    def make_ready(self, now: datetime) -> Artifact:
        """READY: the bytes are under `final_key`."""
        self._check(ArtifactState.READY)
        return replace(self, state=ArtifactState.READY, ready_time=now, due_time=None)

    def fail(self, due_time: datetime) -> Artifact:
        """FAILED: it will never be ready; what was stored of it goes at `due_time`."""
        self._check(ArtifactState.FAILED)
        return replace(self, state=ArtifactState.FAILED, due_time=due_time)

    def clean(self) -> Artifact:
        """The sweeper has deleted what a failed upload stored."""
        return replace(self, due_time=None)

    @property
    def _name(self) -> str:
        return f"{self.attempt}.{self.task_index}.{self.artifact_id}"

    def _check(self, to: ArtifactState) -> None:
        if to not in MOVES[self.state]:
            raise IllegalMove(f"artifact {self.state} -> {to}")
