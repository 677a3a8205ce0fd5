"""What the descriptors say: our options on fields, enum values and methods, and google.api.http."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from junglegrid.api.v1 import field_pb2, route_pb2

from gateway.transcoder.paths import Template

VERBS = ("get", "put", "post", "delete", "patch")
WHOLE_BODY = "*"


class RuleError(Exception):
    """The protos ask for something that the transcoder cannot do. Found at start, never later."""


@cache
def of_field(descriptor: FieldDescriptor) -> field_pb2.FieldRule:
    """The options of one field; all empty where none are written."""
    rule: field_pb2.FieldRule = descriptor.GetOptions().Extensions[field_pb2.field]
    return rule


@dataclass(frozen=True)
class Words:
    """JSON words of one enum."""

    by_number: Mapping[int, str]
    by_word: Mapping[str, int]
    accepted: Mapping[str, int]


@cache
def of_enum(descriptor: EnumDescriptor) -> Words:
    """The words of an enum: shown, read, and read including other spellings."""
    prefix = _prefix(descriptor.name)
    by_number: dict[int, str] = {}
    by_word: dict[str, int] = {}
    others: dict[str, int] = {}
    for value in descriptor.values:
        rule = value.GetOptions().Extensions[field_pb2.value]
        word = rule.spelling or value.name.removeprefix(prefix).lower()
        by_number.setdefault(value.number, word)
        if value.number != 0 or rule.spelling:
            by_word[word] = value.number
        others.update(dict.fromkeys(rule.aliases, value.number))
    return Words(by_number, by_word, by_word | others)


def _prefix(name: str) -> str:
    """JobStatus -> JOB_STATUS_"""
    out = ""
    for index, letter in enumerate(name):
        starts_word = letter.isupper() and index > 0
        if starts_word and (not name[index - 1].isupper() or name[index + 1 : index + 2].islower()):
            out += "_"
        out += letter.upper()
    return out + "_"


@dataclass(frozen=True, eq=False)
class Route:
    """One public HTTP binding of one RPC."""

    verb: str
    template: Template
    body: str
    response_body: str
    method: MethodDescriptor
    scopes: frozenset[str] = frozenset()
    success_status: int = 200
    public: bool = False
    report_broken_rules: bool = False
    body_bytes_max: int = 0
    tag: str = ""
    event_oneof: str = ""
    id_field: str = ""
    retry_millis: int = 0
    header_fields: Mapping[str, FieldDescriptor] = field(default_factory=dict)
    query_fields: Mapping[str, FieldDescriptor] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The template as written, as in /v1/jobs/{job_id}."""
        return self.template.text

    @property
    def rpc(self) -> str:
        """/package.Service/Method"""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def package(self) -> str:
        """The proto package that owns the method."""
        return str(self.method.containing_service.file.package)

    @property
    def streams(self) -> bool:
        """The answer is text/event-stream."""
        return bool(self.method.server_streaming)


def routes(services: Iterable[ServiceDescriptor]) -> list[Route]:
    """Every binding of every annotated method. Raises RuleError where they contradict."""
    found = [
        route
        for service in services
        for method in service.methods
        if method.GetOptions().HasExtension(annotations_pb2.http)
        for route in _of_method(method)
    ]
    seen: dict[tuple[str, str], Route] = {}
    for route in found:
        key = (route.verb, route.template.shape)
        if key in seen:
            raise RuleError(
                f"{route.verb} {route.path} is bound to {seen[key].rpc} and {route.rpc}"
            )
        seen[key] = route
    return found


def _of_method(method: MethodDescriptor) -> Iterator[Route]:
    if method.client_streaming:
        raise RuleError(f"{method.full_name}: a client stream cannot be an HTTP route")
    http = method.GetOptions().Extensions[annotations_pb2.http]
    rule = method.GetOptions().Extensions[route_pb2.route]
    for binding in (http, *http.additional_bindings):
        yield _bind(method, binding, rule)


def _bind(method: MethodDescriptor, http: Any, rule: route_pb2.RouteRule) -> Route:
    verb, template = _pattern(method, http)
    request = method.input_type
    in_path = {name.split(".")[0] for name in template.names}
    if missing := in_path - set(request.fields_by_name):
        raise RuleError(
            f"{method.full_name}: the path names {missing}, the request has no such field"
        )
    for name in (http.body,) if http.body not in ("", WHOLE_BODY) else ():
        if name not in request.fields_by_name:
            raise RuleError(f"{method.full_name}: body '{name}' is no field of {request.full_name}")
    if http.response_body and http.response_body not in method.output_type.fields_by_name:
        raise RuleError(f"{method.full_name}: response_body '{http.response_body}' is no field")
    headers = {of_field(item).header: item for item in request.fields if of_field(item).header}
    taken = in_path | {item.name for item in headers.values()} | {http.body}
    query = {} if http.body == WHOLE_BODY else _query_fields(request, taken)
    return Route(
        verb=verb,
        template=template,
        body=http.body,
        response_body=http.response_body,
        method=method,
        scopes=frozenset(rule.scopes),
        success_status=rule.success_status or 200,
        public=rule.public,
        report_broken_rules=rule.validate == route_pb2.VALIDATE_MODE_REPORT,
        body_bytes_max=rule.body_bytes_max,
        tag=rule.tag or method.containing_service.name,
        header_fields=headers,
        query_fields=query,
        **_stream(method, rule),
    )


def _pattern(method: MethodDescriptor, http: Any) -> tuple[str, Template]:
    kind = http.WhichOneof("pattern")
    if kind not in VERBS:
        raise RuleError(f"{method.full_name}: the HTTP rule needs one of {', '.join(VERBS)}")
    try:
        return kind.upper(), Template.parse(getattr(http, kind))
    except ValueError as error:
        raise RuleError(f"{method.full_name}: {error}") from None


def _stream(method: MethodDescriptor, rule: route_pb2.RouteRule) -> dict[str, Any]:
    if not method.server_streaming:
        if rule.HasField("stream"):
            raise RuleError(f"{method.full_name}: stream rules are for server streams")
        return {}
    output = method.output_type
    if rule.stream.event_oneof not in output.oneofs_by_name:
        raise RuleError(f"{method.full_name}: stream.event_oneof must name a oneof of the reply")
    if rule.stream.id_field and rule.stream.id_field not in output.fields_by_name:
        raise RuleError(f"{method.full_name}: stream.id_field is no field of the reply")
    return {
        "event_oneof": rule.stream.event_oneof,
        "id_field": rule.stream.id_field,
        "retry_millis": rule.stream.retry_millis,
    }


def _query_fields(request: Descriptor, taken: set[str]) -> dict[str, FieldDescriptor]:
    """Fields that a query may fill: scalars and lists of them that nothing else fills."""
    found: dict[str, FieldDescriptor] = {}
    for item in request.fields:
        rule = of_field(item)
        # A secret in a URL would end up in logs and histories.
        if item.name in taken or rule.internal or rule.secret or item.message_type is not None:
            continue
        found.update(dict.fromkeys((item.name, *rule.aliases), item))
    return found
