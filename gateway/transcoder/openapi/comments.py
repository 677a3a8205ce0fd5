"""Comments of a compiled contract, by the full name of what they stand above."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

# Field numbers in descriptor.proto, of which source locations are made.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _VALUES, _METHODS = 2, 3, 4, 2, 2


class Comments:
    """Looks comments up; a name without one has an empty comment."""

    def __init__(self, files: FileDescriptorSet) -> None:
        self._found: dict[str, str] = {}
        for file in files.file:
            _collect(file, self._found)

    def of(self, full_name: str) -> str:
        """The comment, paragraphs kept, line breaks inside of them removed."""
        return self._found.get(full_name, "")


def _collect(file: FileDescriptorProto, found: dict[str, str]) -> None:
    texts = {
        tuple(location.path): location.leading_comments or location.trailing_comments
        for location in file.source_code_info.location
    }
    scope = f"{file.package}." if file.package else ""
    _messages(file.message_type, (_MESSAGES,), scope, texts, found)
    _enums(file.enum_type, (_ENUMS,), scope, texts, found)
    for index, service in enumerate(file.service):
        path = (_SERVICES, index)
        _keep(found, scope + service.name, texts, path)
        for number, method in enumerate(service.method):
            name = f"{scope}{service.name}.{method.name}"
            _keep(found, name, texts, (*path, _METHODS, number))


def _messages(
    messages: Iterable[Any],
    base: tuple[int, ...],
    scope: str,
    texts: Mapping[tuple[int, ...], str],
    found: dict[str, str],
) -> None:
    for index, message in enumerate(messages):
        path, name = (*base, index), scope + message.name
        _keep(found, name, texts, path)
        for number, field in enumerate(message.field):
            _keep(found, f"{name}.{field.name}", texts, (*path, _FIELDS, number))
        _messages(message.nested_type, (*path, _NESTED), f"{name}.", texts, found)
        _enums(message.enum_type, (*path, _NESTED_ENUMS), f"{name}.", texts, found)


def _enums(
    enums: Iterable[Any],
    base: tuple[int, ...],
    scope: str,
    texts: Mapping[tuple[int, ...], str],
    found: dict[str, str],
) -> None:
    for index, enum in enumerate(enums):
        path, name = (*base, index), scope + enum.name
        _keep(found, name, texts, path)
        for number, value in enumerate(enum.value):
            _keep(found, f"{name}.{value.name}", texts, (*path, _VALUES, number))


def _keep(
    found: dict[str, str], name: str, texts: Mapping[tuple[int, ...], str], path: tuple[int, ...]
) -> None:
    text = texts.get(path, "").strip()
    if text:
        found[name] = clean(text)


def clean(text: str) -> str:
    """One line per paragraph; indented blocks, such as state diagrams, are kept as they are."""
    paragraphs = re.split(r"\n\s*\n", "\n".join(line.rstrip() for line in text.splitlines()))
    return "\n\n".join(_paragraph(each) for each in paragraphs)


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if all(line.startswith("   ") for line in lines if line):
        return text
    return " ".join(line.strip() for line in lines)
