"""The test contract, compiled in a temporary folder and loaded without touching the import path."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import grpc_tools
from google.api import annotations_pb2
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
)
from google.protobuf.descriptor import ServiceDescriptor
from grpc_tools import protoc
from junglegrid.api.v1 import field_pb2, route_pb2

HERE = Path(__file__).parent
NAME = "gatewaytest/v1/zoo.proto"
# Imported for their place in the descriptor pool.
NEEDED = (annotations_pb2, duration_pb2, struct_pb2, timestamp_pb2, field_pb2, route_pb2)


@cache
def service() -> ServiceDescriptor:
    """gatewaytest.v1.ZooService"""
    pool = descriptor_pool.Default()
    for file in files().file:
        if file.name == NAME:
            pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(
                file.SerializeToString()
            )
    return pool.FindServiceByName("gatewaytest.v1.ZooService")


@cache
def files() -> descriptor_pb2.FileDescriptorSet:
    """The compiled contract with its comments."""
    site = Path(annotations_pb2.__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "zoo.binpb"
        code = protoc.main(
            [
                "protoc",
                f"-I{HERE / 'protos'}",
                f"-I{HERE.parents[2] / 'protos'}",
                f"-I{site}",
                f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
                f"--descriptor_set_out={out}",
                "--include_imports",
                "--include_source_info",
                NAME,
            ]
        )
        assert code == 0, "the test contract does not compile"
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def message(name: str) -> Any:
    """The class of gatewaytest.v1.<name>."""
    service()
    pool = descriptor_pool.Default()
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"gatewaytest.v1.{name}"))
