"""Settings of the gateway: section [gateway]."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GatewayConfig:
    """Limits carry their unit in the name; every default is safe for a public address."""

    host: str = "127.0.0.1"
    port: int = 8080

    body_bytes_max: int = 1024 * 1024
    body_seconds: float = 10.0
    head_seconds: float = 10.0
    keep_alive_seconds: float = 75.0
    call_seconds: float = 30.0
    connections_max: int = 16_384
    connections_per_address_max: int = 8_192

    streams_per_key_max: int = 50
    stream_heartbeat_seconds: float = 15.0
    stream_write_seconds: float = 5.0
    stream_first_event_seconds: float = 2.0
    stream_buffer_bytes: int = 64 * 1024

    # A key that was not confirmed for this long is asked for again before it opens anything.
    key_unconfirmed_seconds: float = 30.0
    # Silence of the revocation stream after which it counts as lost; it beats every second.
    revocation_silence_seconds: float = 4.0
    resolve_seconds: float = 5.0
    keys_cached_max: int = 50_000
    unknown_key_seconds: float = 5.0

    cors_origins: tuple[str, ...] = ()
    # Empty: /metrics answers callers on the loopback interface only.
    metrics_token: str = ""
    access_log: bool = True
    ready_seconds: float = 1.0
