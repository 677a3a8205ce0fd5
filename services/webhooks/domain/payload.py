"""What a callback says: body and headers, as the production guide has them (section 11)."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

VERSION = "v1"
AGENT = "JungleGrid-Callback/1"


@dataclass(frozen=True, slots=True)
class CallbackFacts:
    """A final job, as its callback tells it."""

    workspace_id: str
    job_id: str
    url: str
    token: str = field(repr=False)
    metadata: Mapping[str, str]
    status: str
    status_reason: str
    created_time: datetime
    queued_time: datetime | None
    started_time: datetime | None
    finished_time: datetime
    image: str
    command: str
    args: tuple[str, ...]
    exit_code: int | None
    timed_out: bool
    assigned_node_id: str
    provider_name: str
    provider_node_id: str


def body(facts: CallbackFacts) -> bytes:
    """The JSON that every try sends. Correlation data goes under both names that receivers read."""
    correlation = dict(facts.metadata)
    found = {
        "version": VERSION,
        "job_id": facts.job_id,
        "status": facts.status,
        "status_reason": facts.status_reason,
        "occurred_at": _time(facts.finished_time),
        "created_at": _time(facts.created_time),
        "queued_at": _time(facts.queued_time),
        "started_at": _time(facts.started_time),
        "finished_at": _time(facts.finished_time),
        "image": facts.image,
        "command": facts.command,
        "args": list(facts.args),
        "exit_code": facts.exit_code,
        "timed_out": facts.timed_out,
        "assigned_node_id": facts.assigned_node_id,
        "provider_name": facts.provider_name,
        "provider_node_id": facts.provider_node_id,
        "correlation_data": correlation,
        "correlation": correlation,
    }
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()


def headers(
    job_id: str, status: str, sent: bytes, now: datetime, secrets: tuple[str, str]
) -> dict[str, str]:
    """Headers of one try at `now`. `secrets` are the receiver's bearer token and our signing
    secret, each empty for none; a signature is made anew for every try."""
    token, secret = secrets
    timestamp = str(int(now.timestamp()))
    found = {
        "Content-Type": "application/json",
        "User-Agent": AGENT,
        "X-JungleGrid-Callback-Version": VERSION,
        "X-JungleGrid-Callback-Timestamp": timestamp,
        "X-JungleGrid-Job-ID": job_id,
        "X-JungleGrid-Job-Status": status,
    }
    if token:
        found["Authorization"] = f"Bearer {token}"
    if secret:
        found["X-JungleGrid-Callback-Signature"] = signature(secret, timestamp, sent)
    return found


def signature(secret: str, timestamp: str, sent: bytes) -> str:
    """`t=<timestamp>,v1=<hex HMAC-SHA256 over "timestamp.body">`."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + sent, hashlib.sha256)
    return f"t={timestamp},v1={digest.hexdigest()}"


def _time(time: datetime | None) -> str | None:
    if time is None:
        return None
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
