"""The door for calls, one file an audience."""

from services.artifacts.rpc.internal import ArtifactInternalService
from services.artifacts.rpc.public import ArtifactService, InputService
from services.artifacts.rpc.upload import ArtifactUploadService

__all__ = [
    "ArtifactInternalService",
    "ArtifactService",
    "ArtifactUploadService",
    "InputService",
]
