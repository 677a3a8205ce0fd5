"""A small service made at run time, with scopes and field rules, for tests of libs/rpc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from junglegrid.api.v1 import route_pb2

PACKAGE = "junglegrid.testing.v1"
_Field = descriptor_pb2.FieldDescriptorProto


def _rule(method: descriptor_pb2.MethodDescriptorProto) -> route_pb2.RouteRule:
    return method.options.Extensions[route_pb2.route]


def _method(
    service: descriptor_pb2.ServiceDescriptorProto, name: str, **streaming: bool
) -> descriptor_pb2.MethodDescriptorProto:
    text = f".{PACKAGE}.Text"
    return service.method.add(name=name, input_type=text, output_type=text, **streaming)


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="junglegrid/testing/v1/echo.proto",
        package=PACKAGE,
        syntax="proto3",
        dependency=["buf/validate/validate.proto", "junglegrid/api/v1/route.proto"],
    )
    text = file.message_type.add(name="Text")
    field = text.field.add(
        name="value", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL
    )
    field.options.Extensions[validate_pb2.field].string.max_len = 64
    many = text.field.add(
        name="many", number=2, type=_Field.TYPE_STRING, label=_Field.LABEL_REPEATED
    )
    many.options.Extensions[validate_pb2.field].repeated.items.string.min_len = 2
    echo = file.service.add(name="EchoService")
    _rule(_method(echo, "Say")).scopes.append("echo:say")
    _rule(_method(echo, "Report")).validate = route_pb2.VALIDATE_MODE_REPORT
    _rule(_method(echo, "Hello")).public = True
    _method(echo, "Count", server_streaming=True)
    _method(echo, "Collect", client_streaming=True)
    _method(echo, "Chat", client_streaming=True, server_streaming=True)
    internal = file.service.add(name="EchoInternalService")
    _method(internal, "Whisper")
    return file


_pool = descriptor_pool.Default()
_pool.Add(_file())
Text: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.Text"))
ECHO = f"{PACKAGE}.EchoService"
INTERNAL = f"{PACKAGE}.EchoInternalService"
_KINDS: dict[str, tuple[str, str]] = {
    "Say": (ECHO, "unary_unary"),
    "Report": (ECHO, "unary_unary"),
    "Hello": (ECHO, "unary_unary"),
    "Count": (ECHO, "unary_stream"),
    "Collect": (ECHO, "stream_unary"),
    "Chat": (ECHO, "stream_stream"),
    "Whisper": (INTERNAL, "unary_unary"),
}


def add_echo(servicer: Any, server: Any) -> None:
    """Registers those methods that `servicer` has, as generated code would."""
    handlers: dict[str, dict[str, Any]] = {}
    for name, (service, kind) in _KINDS.items():
        behavior = getattr(servicer, name, None)
        if behavior is not None:
            make: Callable[..., Any] = getattr(grpc, f"{kind}_rpc_method_handler")
            handlers.setdefault(service, {})[name] = make(
                behavior, Text.FromString, Text.SerializeToString
            )
    for service, methods in handlers.items():
        server.add_registered_method_handlers(service, methods)


class EchoStub:
    """The generated stub's shape: one multi-callable per method."""

    def __init__(self, channel: Any) -> None:
        for name, (service, kind) in _KINDS.items():
            make = getattr(channel, kind)
            path = f"/{service}/{name}"
            setattr(self, name, make(path, Text.SerializeToString, Text.FromString))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)
