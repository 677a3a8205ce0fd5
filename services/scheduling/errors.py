"""Why scheduling refuses."""

from __future__ import annotations

from libs.errors import InvalidRequest, StaleWrite


class BadShape(InvalidRequest):
    """Work of this shape cannot be asked for."""


class StaleNodes(StaleWrite):
    """Nodes that are not as the planner saw them; nothing of the batch was kept."""

    def __init__(self, node_ids: frozenset[str]) -> None:
        super().__init__(f"{len(node_ids)} nodes changed")
        self.node_ids = node_ids
