"""Path templates of google.api.http, and the router made of them.

A literal segment wins over a parameter, a parameter over a tail, so `/v1/jobs/estimate` is found
before `/v1/jobs/{job_id}` whichever was added first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote

T = TypeVar("T")
_PIECE = re.compile(r"\{([a-z_][a-z0-9_.]*)(?:=([^{}]+))?\}|([^/{}]+)")
ONE, REST = "*", "**"


@dataclass(frozen=True)
class Template:
    """A parsed path. `parts` are literals, ONE or REST; a name spans parts [start, end)."""

    text: str
    parts: tuple[str, ...]
    names: dict[str, tuple[int, int]]
    verb: str

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises ValueError for what is no template."""
        body, verb = _split_verb(text)
        parts: list[str] = []
        names: dict[str, tuple[int, int]] = {}
        if not body.startswith("/"):
            raise ValueError(f"path '{text}' must start with /")
        at = 1
        while at < len(body):
            match = _PIECE.match(body, at)
            if match is None:
                raise ValueError(f"path '{text}' cannot be read at '{body[at:]}'")
            inner = (match[2] or ONE) if match[1] else match[3]
            start = len(parts)
            parts += inner.split("/")
            if match[1]:
                names[match[1]] = (start, len(parts))
            at = match.end()
            if at < len(body):
                if body[at] != "/":
                    raise ValueError(f"path '{text}' needs a / at '{body[at:]}'")
                at += 1
        if REST in parts[:-1]:
            raise ValueError(f"path '{text}': ** must come last")
        return cls(text, tuple(parts), names, verb)

    @property
    def shape(self) -> str:
        """Equal for two templates that match the same paths."""
        return "/" + "/".join(self.parts) + (f":{self.verb}" if self.verb else "")

    def bind(self, segments: list[str]) -> dict[str, str]:
        """Values of the names, percent-decoded."""
        return {
            name: "/".join(unquote(part) for part in segments[start:end])
            if self.parts[end - 1] != REST
            else "/".join(unquote(part) for part in segments[start:])
            for name, (start, end) in self.names.items()
        }


def _split_verb(text: str) -> tuple[str, str]:
    """/v1/jobs/{id}:stop -> (/v1/jobs/{id}, stop); a colon inside braces is no verb."""
    head, colon, verb = text.rpartition(":")
    return (head, verb) if colon and "/" not in verb and "}" not in verb else (text, "")


@dataclass
class _Node(Generic[T]):
    literal: dict[str, _Node[T]] = field(default_factory=dict)
    one: _Node[T] | None = None
    rest: dict[str, dict[str, tuple[Template, T]]] = field(default_factory=dict)
    # verb suffix -> HTTP method -> target
    ends: dict[str, dict[str, tuple[Template, T]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Match(Generic[T]):
    """A path that exists: what each HTTP method of it leads to."""

    targets: dict[str, tuple[Template, T]]
    segments: list[str]


class Router(Generic[T]):
    """Finds what serves a path. Paths without parameters are one dictionary look-up."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._exact: dict[str, Match[T]] = {}
        self._has_verbs = False

    def add(self, method: str, template: Template, target: T) -> None:
        """Raises ValueError when the method and path are taken."""
        node = self._root
        for part in template.parts:
            if part == REST:
                break
            if part == ONE:
                node.one = node.one or _Node()
                node = node.one
            else:
                node = node.literal.setdefault(part, _Node())
        ends = node.rest if template.parts[-1:] == (REST,) else node.ends
        methods = ends.setdefault(template.verb, {})
        if method in methods:
            raise ValueError(f"{method} {template.text} is served twice")
        methods[method] = (template, target)
        self._has_verbs = self._has_verbs or bool(template.verb)
        if not template.names and not {ONE, REST} & set(template.parts):
            self._exact[template.text] = Match(methods, [])

    def find(self, path: str) -> Match[T] | None:
        """`path` is raw, without the query. None when nothing at all lives there."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        if not path.startswith("/"):
            return None
        segments = path[1:].split("/")
        if self._has_verbs:
            head, colon, verb = segments[-1].rpartition(":")
            if colon and head:
                found = _walk(self._root, [*segments[:-1], head], 0, verb)
                if found is not None:
                    return Match(found, [*segments[:-1], head])
        found = _walk(self._root, segments, 0, "")
        return None if found is None else Match(found, segments)


def _walk(
    node: _Node[T], segments: list[str], at: int, verb: str
) -> dict[str, tuple[Template, T]] | None:
    end = len(segments)
    while at < end:
        part = segments[at]
        follow = node.literal.get(part)
        other = node.one if part else None
        if follow is not None and (other is not None or node.rest):
            found = _walk(follow, segments, at + 1, verb)  # may be a dead end: others remain
            if found is not None:
                return found
            follow = None
        follow = follow or other
        if follow is None:
            return node.rest.get(verb)
        if node.rest:
            return _walk(follow, segments, at + 1, verb) or node.rest.get(verb)
        node = follow
        at += 1
    return node.ends.get(verb)
