"""Field rules of a request, checked at the door."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from libs.errors import InvalidRequest
from libs.rpc.methods import Method

VIOLATIONS_MAX = 20


def check(message: Any) -> None:
    """Raises InvalidRequest with `details.violations` [{field, rule, message}] on a broken rule."""
    found = violations(message)
    if not found:
        return
    first = found[0]
    where = f"{first['field']}: " if first["field"] else ""
    raise InvalidRequest(f"{where}{first['message']}", details={"violations": found})


def violations(message: Any) -> list[dict[str, str]]:
    """The broken rules of `message`, at most VIOLATIONS_MAX; empty when it is valid."""
    return [_plain(each.proto) for each in _validator().collect_violations(message)][
        :VIOLATIONS_MAX
    ]


def warm(methods: Iterable[Method]) -> None:
    """Compiles the rules of these methods' requests, which takes 0.1 s for a large one, so that the
    first caller does not wait for it."""
    from google.protobuf.descriptor_pool import Default
    from google.protobuf.message_factory import GetMessageClass

    for method in methods:
        if method.enforce:
            found = Default().FindServiceByName(method.service).FindMethodByName(method.name)
            violations(GetMessageClass(found.input_type)())


@cache
def _validator() -> Any:
    # The engine takes 0.1 s to import: a process that never validates does not pay for it.
    from protovalidate import Validator

    return Validator()


def _plain(violation: Any) -> dict[str, str]:
    path = violation.field
    return {
        "field": _path(path.elements) if path is not None else "",
        "rule": violation.rule_id or "",
        "message": violation.message or violation.rule_id or "is not valid",
    }


def _path(elements: Any) -> str:
    parts: list[str] = []
    for element in elements:
        name = element.field_name or ""
        parts.append(f"{name}{_subscript(element.subscript)}")
    return ".".join(parts)


def _subscript(subscript: Any) -> str:
    if subscript is None:
        return ""
    value = subscript.value
    return f'["{value}"]' if isinstance(value, str) else f"[{value}]"
