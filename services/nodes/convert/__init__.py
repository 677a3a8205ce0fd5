"""Messages and nouns of nodes. What a node says is cleaned on the way in."""

from services.nodes.convert.inbound import (
    closing,
    hello,
    inventory,
    node_report,
    placement,
    region,
    stop_reason,
    token_draft,
    word,
)
from services.nodes.convert.outbound import (
    lease_event,
    node_event,
    to_claim,
    to_state,
    to_summary,
    to_sync_response,
)

__all__ = [
    "closing",
    "hello",
    "inventory",
    "lease_event",
    "node_event",
    "node_report",
    "placement",
    "region",
    "stop_reason",
    "to_claim",
    "to_state",
    "to_summary",
    "to_sync_response",
    "token_draft",
    "word",
]
