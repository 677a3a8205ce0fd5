"""Rows of artifacts as values, and back."""

from services.artifacts.repository.artifacts import ArtifactsRepository
from services.artifacts.repository.inputs import InputsRepository

__all__ = ["ArtifactsRepository", "InputsRepository"]
