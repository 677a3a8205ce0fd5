"""JSON Schemas of messages as they are read and as they are shown; the two can differ."""

from __future__ import annotations

from typing import Any, Literal

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from junglegrid.api.v1 import field_pb2

from gateway.transcoder import rules
from gateway.transcoder.encode import is_optional
from gateway.transcoder.openapi.comments import Comments

Mode = Literal["read", "shown"]
Schema = dict[str, Any]

_FORMS = field_pb2.JsonForm
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_SINT32: "int32",
    FieldDescriptor.TYPE_SFIXED32: "int32",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_FIXED32: "uint32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_SINT64: "int64",
    FieldDescriptor.TYPE_SFIXED64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_FIXED64: "uint64",
}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.StringValue": {"type": "string"},
    "google.protobuf.BoolValue": {"type": "boolean"},
}
_NUMBER_RULES = {
    "gte": "minimum",
    "lte": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
}
_TEXT_RULES = {"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern"}


class Schemas:
    """Collects the components that the document needs, each made once per mode."""

    def __init__(self, comments: Comments) -> None:
        self._comments = comments
        self.components: dict[str, Schema] = {}
        self._names: dict[tuple[Mode, str], str] = {}

    def message(self, descriptor: Descriptor, mode: Mode) -> Schema:
        """A reference to the schema of a message."""
        known = _WELL_KNOWN.get(descriptor.full_name)
        if known is not None:
            return dict(known)
        key = (mode, descriptor.full_name)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self._free_name(descriptor, mode)
            self.components[name] = {}  # holds the place while the type refers to itself
            self.components[name] = self._object(descriptor, mode)
        return {"$ref": f"#/components/schemas/{name}"}

    def field(self, field: FieldDescriptor, mode: Mode) -> Schema:
        """The schema of one field with its description and rules."""
        schema = self._shape(field, mode)
        if mode == "shown" and _nullable(field):
            schema = _or_null(schema)
        if mode == "read":
            _add_rules(field, schema)
        text = self._comments.of(field.full_name)
        return {**schema, "description": text} if text else schema

    def _free_name(self, descriptor: Descriptor, mode: Mode) -> str:
        plain = descriptor.name
        for name in (plain, plain + ("Input" if mode == "read" else "Output")):
            if name not in self.components:
                return name
        return descriptor.full_name.replace(".", "_") + f"_{mode}"

    def _object(self, descriptor: Descriptor, mode: Mode) -> Schema:
        properties: dict[str, Schema] = {}
        required: list[str] = []
        for field in descriptor.fields:
            rule = rules.of_field(field)
            if rule.internal or rule.header or (mode == "shown" and rule.secret):
                continue
            names = [field.name, *(rule.copies if mode == "shown" else ())]
            for name in names:
                properties[name] = self.field(field, mode)
            for name in rule.aliases if mode == "read" else ():
                properties[name] = {
                    **self._shape(field, mode),
                    "description": f"Another name for `{field.name}`.",
                }
            if _always(field, rule) if mode == "shown" else _validate(field).required:
                required += names
        schema: Schema = {"type": "object", "properties": properties}
        if text := self._comments.of(descriptor.full_name):
            schema["description"] = text
        return {**schema, "required": required} if required else schema

    def _shape(self, field: FieldDescriptor, mode: Mode) -> Schema:
        form = rules.of_field(field).form
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            value = self._item(message.fields_by_name["value"], mode)
            return {"type": "object", "additionalProperties": value}
        item = self._item(field, mode)
        if mode == "read" and form == _FORMS.JSON_FORM_STRING_OR_MESSAGE:
            item = {"anyOf": [{"type": "string"}, item]}
        if not field.is_repeated:
            return item
        single = (_FORMS.JSON_FORM_STRING_OR_LIST, _FORMS.JSON_FORM_STRING_OR_MESSAGE)
        if mode == "read" and form in single:
            return {"anyOf": [{"type": "array", "items": item}, item]}
        return {"type": "array", "items": item}

    def _item(self, field: FieldDescriptor, mode: Mode) -> Schema:
        form = rules.of_field(field).form
        if field.message_type is not None:
            return self.message(field.message_type, mode)
        if field.enum_type is not None:
            return self._enum(field.enum_type, mode)
        if form == _FORMS.JSON_FORM_MICROS_AS_NUMBER:
            return {"type": "number", "multipleOf": 0.000001} if mode == "read" else _number()
        if form == _FORMS.JSON_FORM_NUMERIC_TEXT:
            return {"type": ["string", "integer"]}
        return scalar(field)

    def _enum(self, enum: EnumDescriptor, mode: Mode) -> Schema:
        words = rules.of_enum(enum)
        allowed = list(words.by_word)
        if mode == "shown" and words.by_number.get(0) not in allowed:
            allowed.insert(0, words.by_number[0])
        return {"type": "string", "enum": allowed}


def scalar(field: FieldDescriptor) -> Schema:
    """The schema of a scalar in its plain form."""
    if field.type in _INTEGERS:
        return {"type": "integer", "format": _INTEGERS[field.type]}
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return _number()
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"type": "boolean"}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return {"type": "string"}


def _number() -> Schema:
    return {"type": "number", "format": "double"}


def _nullable(field: FieldDescriptor) -> bool:
    rule = rules.of_field(field)
    if rule.omit_when_empty or field.is_repeated:
        return False
    return bool(rule.null_when_absent) or (field.message_type is None and is_optional(field))


def _always(field: FieldDescriptor, rule: field_pb2.FieldRule) -> bool:
    if rule.omit_when_empty:
        return False
    return field.is_repeated or not field.has_presence or _nullable(field)


def _or_null(schema: Schema) -> Schema:
    kind = schema.get("type")
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    if isinstance(kind, list):
        return {**schema, "type": [*kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _validate(field: FieldDescriptor) -> validate_pb2.FieldRules:
    found: validate_pb2.FieldRules = field.GetOptions().Extensions[validate_pb2.field]
    return found


def _add_rules(field: FieldDescriptor, schema: Schema) -> None:
    """Limits that a person should see; the service enforces all of them."""
    found = _validate(field)
    kind = found.WhichOneof("type")
    if kind is None:
        return
    limits = getattr(found, kind)
    if kind == "repeated" and schema.get("type") == "array":
        for name, key in (("min_items", "minItems"), ("max_items", "maxItems")):
            if limits.HasField(name):
                schema[key] = getattr(limits, name)
    elif kind == "string" and schema.get("type") == "string":
        for name, key in _TEXT_RULES.items():
            if limits.HasField(name):
                schema[key] = getattr(limits, name)
        if getattr(limits, "in"):
            schema["enum"] = list(getattr(limits, "in"))
    elif kind in ("int32", "int64", "uint32", "uint64", "double", "float"):
        micros = rules.of_field(field).form == _FORMS.JSON_FORM_MICROS_AS_NUMBER
        for name, key in _NUMBER_RULES.items():
            if limits.HasField(name):
                bound = getattr(limits, name)
                schema[key] = bound / 1_000_000 if micros else bound
