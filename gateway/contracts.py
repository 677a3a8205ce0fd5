"""The compiled contracts: the services there are, their routes, and what is said of them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import junglegrid
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.transcoder.openapi import Comments
from gateway.transcoder.rules import Route, routes

_IMAGE = Path(__file__).resolve().parents[1] / "build" / "protos" / "grid.binpb"
_INTERNAL = "InternalService"
_SERVICE_FILES = "*/v*/*_service_pb2.py"


class NotBuilt(Exception):
    """The contracts have not been compiled; the message says how."""


def services() -> list[ServiceDescriptor]:
    """Every service of every package, in a fixed order."""
    found: list[ServiceDescriptor] = []
    for root in dict.fromkeys(junglegrid.__path__):  # the same folder may be listed twice
        base = Path(root)
        for file in sorted(base.glob(_SERVICE_FILES)):
            name = ".".join(file.relative_to(base).with_suffix("").parts)
            module = import_module(f"junglegrid.{name}")
            found += module.DESCRIPTOR.services_by_name.values()
    if not found:
        raise NotBuilt("the contracts are not compiled; run `make proto`")
    return found


def public_routes() -> list[Route]:
    """The routes of all of them, in the order of their paths."""
    return sorted(routes(services()), key=lambda route: (route.path, route.verb))


def owner(route: Route) -> str:
    """The service that answers: junglegrid.jobs.v1 is served by `jobs`."""
    return route.package.split(".")[1]


def parts() -> dict[str, str]:
    """Every part of the grid by its name as a peer, and a service by which its health is asked.

    That service is one of those on the internal listener; the others are for daemons.
    """
    found: dict[str, str] = {}
    for service in services():
        name = service.file.package.split(".")[1]
        if service.name.endswith(_INTERNAL) or any(routes([service])):
            found.setdefault(name, service.full_name)
    return dict(sorted(found.items()))


def comments(image: Path = _IMAGE) -> Comments:
    """The comments of all contracts. Raises NotBuilt when there is no image to read them from."""
    try:
        data = image.read_bytes()
    except FileNotFoundError:
        raise NotBuilt("build/protos/grid.binpb is missing; run `make proto`") from None
    return Comments(FileDescriptorSet.FromString(data))
