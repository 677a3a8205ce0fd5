"""The generated code works as a whole: options, rules and stubs of every contract can be read."""

from __future__ import annotations

import importlib
from pathlib import Path

import protovalidate
import pytest
from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from tests.architecture.tree import ROOT

PROTOS = ROOT / "protos"
MODULES = [
    path.relative_to(PROTOS).with_suffix("").as_posix().replace("/", ".") + "_pb2"
    for path in sorted(PROTOS.rglob("*.proto"))
]
NAME_CHARACTERS_MAX = 5


def test_a_broken_rule_is_reported() -> None:
    message = thing(name="toolong")
    with pytest.raises(protovalidate.ValidationError) as raised:
        protovalidate.Validator().validate(message)
    assert [violation.proto.rule_id for violation in raised.value.violations] == ["string.max_len"]
    protovalidate.Validator().validate(thing(name="short"))


def thing(name: str) -> Message:
    """A message of a file made here, with one rule from our own generated validate_pb2."""
    file = descriptor_pb2.FileDescriptorProto(
        name="rule/thing.proto",
        package="rule",
        syntax="proto3",
        dependency=["buf/validate/validate.proto"],
    )
    field = file.message_type.add(name="Thing").field.add(name="name", number=1)
    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    field.options.Extensions[validate_pb2.field].string.max_len = NAME_CHARACTERS_MAX
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("rule.Thing"))
    return made(name=name)


@pytest.mark.parametrize("module", MODULES)
def test_rules_of_every_message_compile(module: str) -> None:
    messages = importlib.import_module(module).DESCRIPTOR.message_types_by_name.values()
    validator = protovalidate.Validator()
    for descriptor in messages:
        # Violations are expected of an empty message; a rule that does not compile raises.
        validator.collect_violations(message_factory.GetMessageClass(descriptor)())


def test_image_holds_our_files_with_their_comments() -> None:
    image = descriptor_pb2.FileDescriptorSet.FromString(
        (ROOT / "build" / "protos" / "grid.binpb").read_bytes()
    )
    ours = {file.name for file in image.file if file.HasField("source_code_info")}
    assert {path.relative_to(PROTOS).as_posix() for path in Path(PROTOS).rglob("*.proto")} <= ours
