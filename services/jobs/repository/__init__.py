"""Rows <-> aggregates; reads; guarded updates."""

from services.jobs.repository.jobs import JobsRepository, Position
from services.jobs.repository.keys import CLIENT_ID, KEY, KeyRow

__all__ = ["CLIENT_ID", "KEY", "JobsRepository", "KeyRow", "Position"]
