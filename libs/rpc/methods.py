"""What the contracts say about a method, read once per method from its descriptor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor

INTERNAL_SUFFIX = "InternalService"


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. `scopes`: any one is enough, none means any caller. `internal`: services only.
    `public`: needs no user. `enforce`: the request has rules and they are enforced at
    the door; messages of a client stream are left to the servicer."""

    path: str
    service: str
    name: str
    request_stream: bool
    response_stream: bool
    scopes: frozenset[str] = frozenset()
    internal: bool = False
    public: bool = False
    enforce: bool = False

    @property
    def unary(self) -> bool:
        """One request, one reply."""
        return not (self.request_stream or self.response_stream)


def describe(service: str, name: str, request_stream: bool, response_stream: bool) -> Method:
    """The method as its proto has it; a service that is not in the pool has no rules."""
    found = _descriptor(service, name)
    rule = _route(found)
    report = rule is not None and rule.validate == _report()
    return Method(
        path=f"/{service}/{name}",
        service=service,
        name=name,
        request_stream=request_stream,
        response_stream=response_stream,
        scopes=frozenset(rule.scopes) if rule is not None else frozenset(),
        internal=service.endswith(INTERNAL_SUFFIX),
        public=rule is not None and rule.public,
        enforce=found is not None
        and not (report or request_stream)
        and has_rules(found.input_type),
    )


def _descriptor(service: str, name: str) -> MethodDescriptor | None:
    try:
        return descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name)
    except KeyError:
        return None


def _route(method: MethodDescriptor | None) -> Any:
    if method is None:
        return None
    from junglegrid.api.v1 import route_pb2

    options = method.GetOptions()
    return options.Extensions[route_pb2.route] if options.HasExtension(route_pb2.route) else None


def _report() -> int:
    from junglegrid.api.v1 import route_pb2

    return int(route_pb2.VALIDATE_MODE_REPORT)


def has_rules(message: Descriptor) -> bool:
    """True when any field or message reachable from `message` carries a validation rule."""
    return _has_rules(message, set())


def _has_rules(message: Descriptor, seen: set[str]) -> bool:
    if message.full_name in seen:
        return False
    seen.add(message.full_name)
    if _ruled(message.GetOptions()) or any(_ruled(one.GetOptions()) for one in message.oneofs):
        return True
    return any(
        _ruled(field.GetOptions())
        or (field.message_type is not None and _has_rules(field.message_type, seen))
        for field in message.fields
    )


def _ruled(options: Any) -> bool:
    return any(
        field.is_extension and field.full_name.startswith("buf.validate.")
        for field, _ in options.ListFields()
    )
