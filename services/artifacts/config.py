"""Settings of artifacts: section `[artifacts]`."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024 * 1024
_GIB = 1024 * _MIB


@dataclass(frozen=True, slots=True)
class ArtifactsConfig:
    """Limits and intervals; units are in the names. `public_base_url` is where people reach the
    gateway: it is what `complete_url` begins with."""

    public_base_url: str = "http://127.0.0.1:8080"
    upload_url_seconds: float = 900.0
    download_url_seconds: float = 900.0
    # A node fetches inputs after it has pulled the image, which may take long.
    input_grant_seconds: float = 3600.0
    input_bytes_max: int = 5 * _GIB
    inputs_per_workspace_max: int = 10_000
    pending_inputs_per_workspace_max: int = 200
    input_bytes_per_workspace_max: int = 100 * _GIB
    inputs_page_default: int = 50
    inputs_page_max: int = 100
    artifact_bytes_max: int = 20 * _GIB
    artifacts_per_job_max: int = 1_000
    artifact_bytes_per_job_max: int = 50 * _GIB
    # What was announced and never came.
    pending_hours: float = 24.0
    retention_days: float = 30.0
    # Between the end of a thing for its owner and the deletion of its bytes.
    tombstone_hours: float = 24.0
    sweep_interval_seconds: float = 300.0
    sweep_rows_max: int = 200

    def __post_init__(self) -> None:
        if not self.public_base_url.startswith(("http://", "https://")):
            raise ValueError("public_base_url must begin with http:// or https://")
        if self.upload_url_seconds > self.pending_hours * 3600:
            raise ValueError("upload_url_seconds must not be longer than pending_hours")
