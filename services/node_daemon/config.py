"""Settings of a node daemon: section `[node]` of its file, under the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what the daemon holds and sends. Times in seconds."""

    log_batch_bytes: int = 64 * 1024
    log_batch_lines: int = 10_000
    log_batch_seconds: float = 0.02
    # The stream is closed when there was no log for this long.
    log_idle_seconds: float = 5.0
    # Sent and not acknowledged yet, per attempt.
    log_window_bytes: int = 512 * 1024
    # After the exit, before the rest of the log is given up.
    log_gap_seconds: float = 60.0
    uploads_at_once: int = 4
    upload_chunk_bytes: int = 1024 * 1024
    # Without any progress; then the file is given up.
    upload_seconds_max: float = 900.0
    input_seconds_max: float = 900.0
    # A process that ends this soon is reported by Complete alone.
    quiet_seconds: float = 0.05
    # Steps before the start are told when it takes this long.
    progress_seconds: float = 1.0
    retry_seconds: float = 0.35
    retry_seconds_max: float = 5.0
    # No answer on the stream for this many heartbeats: it is dead, whatever TCP thinks.
    silent_heartbeats_max: int = 3
    disk_full_share: float = 0.90


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """`grid` is `unix:<path>` or `host:port`. `gpus` is `nvml`, `none` or `simulated:<inventory>`.

    0 for a size offers what the machine has. `run_folder` must be reachable for every user; by
    default it is below /run for root, and in the home otherwise.
    """

    grid: str
    home: Path
    runtimes: tuple[str, ...] = ("sandbox",)
    gpus: str = "none"
    name: str = ""
    region: str = ""
    enrolment_token_file: Path | None = None
    tls_ca_file: Path | None = None
    insecure_sandbox: bool = False
    docker_socket: str = "/var/run/docker.sock"
    cgroup_name: str = "junglegrid"
    run_folder: Path | None = None
    slots: int = 8
    slots_ready: int = 4
    slot_bytes: int = 1024 * 1024 * 1024
    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    log_level: str = "info"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        unknown = set(self.runtimes) - {"sandbox", "docker", "simulated"}
        if unknown or not self.runtimes:
            raise ValueError("runtimes must be one or more of sandbox, docker, simulated")
        if self.slots < 1:
            raise ValueError("slots must be at least 1")
