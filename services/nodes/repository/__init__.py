"""Rows of nodes."""

from services.nodes.repository.store import NodesRepository

__all__ = ["NodesRepository"]
