"""Settings of the logs service."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogsConfig:
    """Limits and intervals; units are in the names."""

    heartbeat_seconds: float = 15.0
    # Facts are gathered for this long under load; an end that comes alone is not delayed.
    consumer_pace_seconds: float = 0.005
    page_entries_max: int = 500
    page_entries_default: int = 100
    # A batch that a daemon sends: lines beyond this are refused with its stream.
    batch_lines_max: int = 20_000
    line_bytes_max: int = 16_384
    # Entries of one stored chunk; bounds what a read of one entry has to decode.
    chunk_entries_max: int = 1_000
    job_bytes_max: int = 268_435_456
    # Entries kept in memory for the readers of one job.
    tail_entries: int = 2_000
    retention_days: int = 30
    retention_interval_seconds: float = 3_600.0
