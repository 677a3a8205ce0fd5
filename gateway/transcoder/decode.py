"""Parsed JSON into messages. One decoder per message type, compiled once from its descriptor.

A decoder walks the keys that were sent, not the fields that exist, so a small body is cheap for a
large message. Unknown keys are skipped and counted: real clients send extra fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from junglegrid.api.v1 import field_pb2

from gateway.transcoder import rules, wellknown
from gateway.transcoder.values import (
    SCALARS,
    FieldError,
    Reader,
    check_size,
    enum_reader,
    read_micros,
    read_numeric_text,
    wrong,
)

DEPTH_MAX = 64

# (message, JSON value, depth) -> None
Setter = Callable[[Any, Any, int], None]
Fill = Callable[[Any, Any, int], None]
Unknown = Callable[[str, int], None]

_FORMS = field_pb2.JsonForm
_READ_TEXT = SCALARS[FieldDescriptor.TYPE_STRING]


class Decoders:
    """Compiles and keeps decoders. `unknown` is told (message type, number of keys skipped)."""

    def __init__(self, unknown: Unknown = lambda name, count: None) -> None:
        self._unknown = unknown
        self._fills: dict[str, Fill] = {}

    def of(self, descriptor: Descriptor) -> Fill:
        """Fills a message of this type from a JSON object. Raises FieldError."""
        special = wellknown.READERS.get(descriptor.full_name)
        if special is not None:
            return special
        found = self._fills.get(descriptor.full_name)
        if found is None:
            found = self._compile(descriptor)
        return found

    def setter(self, field: FieldDescriptor) -> Setter:
        """Sets one field from its JSON value."""
        return _setter(self, field)

    def _compile(self, descriptor: Descriptor) -> Fill:
        setters: dict[str, Setter] = {}
        aliases: dict[str, str] = {}
        fill = _filler(descriptor.full_name, setters, aliases, self._unknown)
        # Kept before its fields are compiled, so that a type may contain itself.
        self._fills[descriptor.full_name] = fill
        for item in descriptor.fields:
            rule = rules.of_field(item)
            if rule.internal or rule.header:
                continue
            setters[item.name] = _in_oneof(item, self.setter(item))
            aliases.update(dict.fromkeys(rule.aliases, item.name))
        if both := set(aliases) & set(setters):
            raise rules.RuleError(f"{descriptor.full_name}: {both} are both fields and aliases")
        return fill


def new_message(descriptor: Descriptor) -> Callable[[], Message]:
    """The message class of a descriptor."""
    made: Callable[[], Message] = message_factory.GetMessageClass(descriptor)
    return made


def _filler(
    type_name: str, setters: dict[str, Setter], aliases: dict[str, str], unknown: Unknown
) -> Fill:
    def fill(message: Any, data: Any, depth: int) -> None:
        if type(data) is not dict:
            raise wrong("an object", data)
        if depth > DEPTH_MAX:
            raise FieldError(f"nested more than {DEPTH_MAX} levels deep")
        skipped = 0
        for key, value in data.items():
            setter = setters.get(key)
            if setter is None:
                name = aliases.get(key)
                if name is None:
                    skipped += 1
                    continue
                if data.get(name) is not None:
                    continue  # the field's own name wins over its other names
                setter = setters[name]
                message.ClearField(name)
            if value is None:
                continue  # null is "not sent"
            try:
                setter(message, value, depth)
            except FieldError as error:
                raise error.under(key) from None
        if skipped:
            unknown(type_name, skipped)

    return fill


def _in_oneof(field: FieldDescriptor, setter: Setter) -> Setter:
    oneof = field.containing_oneof
    if oneof is None or len(oneof.fields) == 1:  # proto3 `optional` is a oneof of one
        return setter
    name, own = oneof.name, field.name

    def put(message: Any, value: Any, depth: int) -> None:
        other = message.WhichOneof(name)
        if other is not None and other != own:
            raise FieldError(f"cannot be sent together with '{other}'")
        setter(message, value, depth)

    return put


def _setter(decoders: Decoders, field: FieldDescriptor) -> Setter:
    form = rules.of_field(field).form
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_setter(decoders, field.name, field.message_type)
    if form == _FORMS.JSON_FORM_STRING_OR_LIST:
        return _string_or_list_setter(field)
    if field.message_type is not None:
        fill = decoders.of(field.message_type)
        if form == _FORMS.JSON_FORM_STRING_OR_MESSAGE:
            fill = _string_or_message(decoders, field.message_type, fill)
        single_too = form == _FORMS.JSON_FORM_STRING_OR_MESSAGE
        return (
            _message_list_setter(field.name, fill, single_too)
            if field.is_repeated
            else _message_setter(field.name, fill)
        )
    read = reader(field)
    return _list_setter(field.name, read) if field.is_repeated else _scalar_setter(field, read)


def reader(field: FieldDescriptor) -> Reader:
    """Reads one JSON value of a scalar or enum field."""
    form = rules.of_field(field).form
    if form == _FORMS.JSON_FORM_MICROS_AS_NUMBER:
        return read_micros
    if form == _FORMS.JSON_FORM_NUMERIC_TEXT:
        return read_numeric_text
    if field.enum_type is not None:
        return enum_reader(rules.of_enum(field.enum_type).accepted)
    return SCALARS[field.type]


def _scalar_setter(field: FieldDescriptor, read: Reader) -> Setter:
    name = field.name
    if read is _READ_TEXT:

        def put_text(message: Any, value: Any, depth: int) -> None:
            if type(value) is not str:
                raise wrong("a string", value)
            setattr(message, name, value)

        return put_text

    def put(message: Any, value: Any, depth: int) -> None:
        setattr(message, name, read(value))

    return put


def _list_setter(name: str, read: Reader) -> Setter:
    if read is _READ_TEXT:

        def put_texts(message: Any, value: Any, depth: int) -> None:
            if type(value) is not list:
                raise wrong("a list", value)
            check_size(value)
            for item in value:
                if type(item) is not str:
                    _each(value, read)  # says which one
            getattr(message, name).extend(value)

        return put_texts

    def put(message: Any, value: Any, depth: int) -> None:
        if type(value) is not list:
            raise wrong("a list", value)
        getattr(message, name).extend(_each(value, read))

    return put


def _each(values: list[Any], read: Reader) -> list[Any]:
    check_size(values)
    out = []
    for index, item in enumerate(values):
        try:
            out.append(read(item))
        except FieldError as error:
            raise error.under(index) from None
    return out


def _string_or_list_setter(field: FieldDescriptor) -> Setter:
    name, owner = field.name, field.containing_type
    companion = f"{name}_is_text"
    has_companion = owner is not None and companion in owner.fields_by_name
    put_list = _list_setter(name, _READ_TEXT)

    def put(message: Any, value: Any, depth: int) -> None:
        if type(value) is list:
            put_list(message, value, depth)
        elif type(value) is str:
            getattr(message, name).append(value)
            if has_companion:
                setattr(message, companion, True)
        else:
            raise wrong("a string or a list of strings", value)

    return put


def _message_setter(name: str, fill: Fill) -> Setter:
    def put(message: Any, value: Any, depth: int) -> None:
        inner = getattr(message, name)
        inner.SetInParent()
        fill(inner, value, depth + 1)

    return put


def _message_list_setter(name: str, fill: Fill, single_too: bool) -> Setter:
    def put(message: Any, value: Any, depth: int) -> None:
        if type(value) is not list:
            if not single_too:
                raise wrong("a list", value)
            fill(getattr(message, name).add(), value, depth + 1)
            return
        check_size(value)
        add = getattr(message, name).add
        for index, item in enumerate(value):
            try:
                fill(add(), item, depth + 1)
            except FieldError as error:
                raise error.under(index) from None

    return put


def _string_or_message(decoders: Decoders, descriptor: Descriptor, fill: Fill) -> Fill:
    first = descriptor.fields_by_number.get(1)
    if first is None or first.type != FieldDescriptor.TYPE_STRING or first.is_repeated:
        raise rules.RuleError(f"{descriptor.full_name}: field 1 must be a string for a bare string")
    name = first.name

    def fill_either(message: Any, value: Any, depth: int) -> None:
        if type(value) is str:
            setattr(message, name, value)
        elif type(value) is dict:
            fill(message, value, depth)
        else:
            raise wrong("a string or an object", value)

    return fill_either


def _map_setter(decoders: Decoders, name: str, entry: Descriptor) -> Setter:
    read_key = _key_reader(entry.fields_by_name["key"])
    item = entry.fields_by_name["value"]
    if item.message_type is not None:
        fill = decoders.of(item.message_type)

        def put_message(target: Any, key: Any, value: Any, depth: int) -> None:
            fill(target[key], value, depth + 1)

        put_one = put_message
    elif item.type == entry.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING:
        return _text_map_setter(name)
    else:
        read = reader(item)

        def put_scalar(target: Any, key: Any, value: Any, depth: int) -> None:
            target[key] = read(value)

        put_one = put_scalar

    def put(message: Any, value: Any, depth: int) -> None:
        if type(value) is not dict:
            raise wrong("an object", value)
        check_size(value)
        target = getattr(message, name)
        for key, inner in value.items():
            try:
                put_one(target, read_key(key), inner, depth)
            except FieldError as error:
                raise error.under(key) from None

    return put


def _text_map_setter(name: str) -> Setter:
    """The usual map, string to string: environments and labels."""

    def put(message: Any, value: Any, depth: int) -> None:
        if type(value) is not dict:
            raise wrong("an object", value)
        check_size(value)
        target = getattr(message, name)
        for key, inner in value.items():
            if type(inner) is not str:
                raise wrong("a string", inner).under(key)
            target[key] = inner

    return put


def _key_reader(field: FieldDescriptor) -> Reader:
    if field.type == FieldDescriptor.TYPE_STRING:
        return lambda key: key
    read = text_reader(field)

    def read_key(key: Any) -> Any:
        return read(key)

    return read_key


def text_reader(field: FieldDescriptor) -> Callable[[str], Any]:
    """Reads one value of a scalar field from text: a query value, a path segment, a header."""
    read = reader(field)
    if read in (_READ_TEXT, read_numeric_text) or field.enum_type:
        return read
    if field.type == FieldDescriptor.TYPE_BYTES:
        return read
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _bool_from_text
    floats = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)
    decimal = read is read_micros or field.type in floats
    return lambda text: read(_number_from_text(text, decimal))


def _bool_from_text(text: str) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if found is None:
        raise FieldError("expected true or false")
    return found


def _number_from_text(text: str, decimal: bool) -> int | float:
    digits = text[1:] if text[:1] == "-" else text
    # int() and float() accept more than JSON does: spaces, underscores, other scripts, inf.
    if digits.isascii() and digits.isdigit() and len(digits) <= 20:
        return int(text)
    if decimal and len(text) <= 40 and digits[:1].isdigit() and digits[-1:].isdigit():
        try:
            return float(text.replace("_", "x"))
        except ValueError:
            pass
    raise FieldError("expected a number" if decimal else "expected a whole number")
