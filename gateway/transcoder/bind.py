"""One HTTP request into one request message: path, query, headers and body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web
from google.protobuf.descriptor import FieldDescriptor

from gateway.transcoder import body as bodies
from gateway.transcoder.decode import Decoders, Fill, new_message, text_reader
from gateway.transcoder.errors import bad_field
from gateway.transcoder.rules import WHOLE_BODY, Route, RuleError
from gateway.transcoder.values import FieldError
from libs.errors import InvalidRequest

QUERY_FIELDS_MAX = 100

Read = Callable[[str], Any]


class Binder:
    """Compiled once per route; `__call__` makes the message of one request."""

    def __init__(self, route: Route, decoders: Decoders) -> None:
        request = route.method.input_type
        self._new = new_message(request)
        self._template = route.template
        self._path = _path_readers(route)
        self._query: dict[str, tuple[str, Read, bool]] = {
            name: (field.name, text_reader(field), field.is_repeated)
            for name, field in route.query_fields.items()
        }
        self._headers = [
            (header, field.name, _header_reader(field))
            for header, field in route.header_fields.items()
        ]
        self._whole = route.body == WHOLE_BODY
        self._body_field = "" if self._whole else route.body
        self._fill = _body_filler(route, decoders)

    @property
    def reads_body(self) -> bool:
        """False for routes that take no body."""
        return self._fill is not None

    def __call__(
        self, request: web.BaseRequest, segments: list[str], query: str, body: bytes
    ) -> Any:
        """Raises InvalidRequest that names the value at fault."""
        message = self._new()
        try:
            if self._fill is not None:
                self._read_body(request, message, body)
            if query:
                self._read_query(message, query)
            # The path and headers come last: nothing in a body may override them.
            for index, name, read in self._path:
                _put(message, name, name, read, _text(segments, index))
            for header, name, read in self._headers:
                value = request.headers.get(header)
                if value is not None:
                    _put(message, name, header, read, value)
        except FieldError as error:
            raise bad_field(error) from None
        return message

    def _read_body(self, request: web.BaseRequest, message: Any, body: bytes) -> None:
        data = bodies.parse(request, body)
        if self._whole:
            assert self._fill is not None
            self._fill(message, data, 1)
            return
        inner = getattr(message, self._body_field)
        inner.SetInParent()
        assert self._fill is not None
        self._fill(inner, data, 1)

    def _read_query(self, message: Any, query: str) -> None:
        seen: set[str] = set()
        for key, text in parse_query(query):
            found = self._query.get(key)
            if found is None:
                continue
            name, read, repeated = found
            try:
                value = read(text)
            except FieldError as error:
                raise error.under(key) from None
            if repeated:
                getattr(message, name).append(value)
                continue
            if name in seen:
                raise FieldError("sent more than once").under(key)
            seen.add(name)
            setattr(message, name, value)


def parse_query(query: str) -> list[tuple[str, str]]:
    """Pairs of a query string. Raises InvalidRequest for too many or for what is not UTF-8."""
    try:
        return parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX
        )
    except UnicodeDecodeError:
        raise InvalidRequest("the query is not UTF-8; percent-encode it as UTF-8") from None
    except ValueError:
        raise InvalidRequest(f"the query has more than {QUERY_FIELDS_MAX} fields") from None


def _put(message: Any, name: str, shown: str, read: Read, text: str) -> None:
    try:
        setattr(message, name, read(text))
    except FieldError as error:
        raise error.under(shown) from None


def _text(segments: list[str], index: int | slice) -> str:
    text = segments[index] if isinstance(index, int) else "/".join(segments[index])
    if "%" not in text:
        return text
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("the path is not UTF-8; percent-encode it as UTF-8") from None


def _header_reader(field: FieldDescriptor) -> Read:
    """The HTTP parser hands bytes that are no UTF-8 on as lone surrogates: no string holds them."""
    inner = text_reader(field)

    def read(text: str) -> Any:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise FieldError("is not UTF-8; send printable ASCII") from None
        return inner(text)

    return read


def _path_readers(route: Route) -> list[tuple[int | slice, str, Read]]:
    fields = route.method.input_type.fields_by_name
    found: list[tuple[int | slice, str, Read]] = []
    for name, (start, end) in route.template.names.items():
        field = fields[name]
        if field.is_repeated or field.message_type is not None:
            raise RuleError(f"{route.rpc}: path field '{name}' must be a single scalar")
        last = len(route.template.parts)
        open_ended = end == last and route.template.parts[-1] == "**"
        index = start if end - start == 1 and not open_ended else slice(start, end)
        found.append((slice(start, None) if open_ended else index, name, text_reader(field)))
    return found


def _body_filler(route: Route, decoders: Decoders) -> Fill | None:
    if not route.body:
        return None
    request = route.method.input_type
    if route.body == WHOLE_BODY:
        return decoders.of(request)
    field: FieldDescriptor = request.fields_by_name[route.body]
    if field.message_type is None or field.is_repeated:
        raise RuleError(f"{route.rpc}: body field '{route.body}' must be one message")
    return decoders.of(field.message_type)
