"""The description of the whole API: what the contracts say, and the gateway's own routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.builtin import VERSION
from gateway.transcoder.errors import Statuses
from gateway.transcoder.openapi import Comments, Info, document
from gateway.transcoder.rules import Route

_TEXT = (
    "Estimate, submit, watch and cancel GPU jobs, and fetch what they produced.\n\n"
    "Send a scoped API key as `Authorization: Bearer jg_...`. Every answer carries "
    "`X-Request-Id`. Errors are JSON: `error.code` is a stable word, `error.message` says what to "
    "do. Repeat a POST safely by sending the same `Idempotency-Key`."
)


def _plain(summary: str, kind: str, *refusals: tuple[str, str]) -> dict[str, Any]:
    answers = {"200": {"description": "OK", "content": {kind: {}}}}
    answers |= {code: {"description": text, "content": {kind: {}}} for code, text in refusals}
    return {
        "get": {"tags": ["Gateway"], "summary": summary, "security": [], "responses": answers},
    }


_OWN = {
    "/healthz": _plain("Says that the process answers", "application/json"),
    "/readyz": _plain(
        "Says whether every part answers",
        "application/json",
        ("503", "Some part does not; `parts` says which"),
    ),
    "/metrics": _plain(
        "Prometheus metrics, for the operator",
        "text/plain",
        ("403", "Not from this machine, or without the metrics token"),
    ),
    "/openapi.json": _plain("This description", "application/json"),
}


def describe(routes: Iterable[Route], comments: Comments, statuses: Statuses) -> dict[str, Any]:
    """The OpenAPI 3.1 document that /openapi.json serves."""
    info = Info("Jungle Grid API", VERSION, _TEXT, statuses, _OWN)
    return document(routes, comments, info)
