"""Rows <-> aggregates: `nodes` for the grid, `entries` for the queue."""

from services.scheduling.repository.entries import Place, QueueRows
from services.scheduling.repository.nodes import GridCounts, GridRows, gpu_mask

__all__ = ["GridCounts", "GridRows", "Place", "QueueRows", "gpu_mask"]
