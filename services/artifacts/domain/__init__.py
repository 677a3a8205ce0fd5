"""Inputs, artifacts, and which attempt may write; pure."""

from services.artifacts.domain.artifacts import Announcement, Artifact, ArtifactState
from services.artifacts.domain.fence import JobHead, Refusal, Writer
from services.artifacts.domain.inputs import (
    Claim,
    Input,
    InputState,
    Mount,
    Stored,
    Usage,
    mounts,
)
from services.artifacts.domain.names import (
    artifact_path,
    content_type,
    guess_content_type,
    input_filename,
    kind_word,
)

__all__ = [
    "Announcement",
    "Artifact",
    "ArtifactState",
    "Claim",
    "Input",
    "InputState",
    "JobHead",
    "Mount",
    "Refusal",
    "Stored",
    "Usage",
    "Writer",
    "artifact_path",
    "content_type",
    "guess_content_type",
    "input_filename",
    "kind_word",
    "mounts",
]
