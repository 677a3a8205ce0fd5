"""All that a module's factory is given; built once, in deploy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from libs.clock import Clock
from libs.config import load, section
from libs.ids import IdSource

if TYPE_CHECKING:
    import grpc.aio

    from libs.bus import Bus
    from libs.objects import Objects
    from libs.rpc.grants import Grants
    from libs.rpc.principal import Signer, Verifier
    from libs.wake import Wake

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """The world as one service sees it. `service` names that service; all else is shared.

    `signer` and `verifier` are for the audience "internal", `node_signer` and `node_verifier` for
    "node-data" (session tokens of daemons), `grants` for attempt grants. `encryption_key` (32
    bytes) wraps secrets at rest and `cursor_key` signs page cursors.
    """

    service: str
    home: Path
    source: Mapping[str, Any]
    clock: Clock
    ids: IdSource
    bus: Bus
    wake: Wake
    objects: Objects
    signer: Signer
    verifier: Verifier
    node_signer: Signer
    node_verifier: Verifier
    grants: Grants
    encryption_key: bytes
    cursor_key: bytes
    connect: Callable[[str, str], grpc.aio.Channel]

    def config(self, cls: type[T], name: str | None = None) -> T:
        """The settings of section `name`, by default this service's, as dataclass `cls`."""
        return load(name or self.service, cls, self.source)

    def peers(self, name: str) -> grpc.aio.Channel:
        """The channel to service `name`; its calls carry this service as principal or as actor."""
        return self.connect(self.service, name)

    def database_url(self, name: str | None = None) -> str:
        """Where the tables of service `name`, by default this one, live."""
        template: str = section(self.source, "stores").get(
            "database_url", f"sqlite:///{self.home}/{{service}}.db"
        )
        return template.replace("{service}", name or self.service)
