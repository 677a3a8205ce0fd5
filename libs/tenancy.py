"""Whose rows a repository may touch; every method over tenant rows takes one of these first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tenant:
    """Rows of one workspace only."""

    workspace_id: str


@dataclass(frozen=True, slots=True)
class SystemScope:
    """Rows of all workspaces, for work that no user asked for; `reason` says which work."""

    reason: str


Scope = Tenant | SystemScope
