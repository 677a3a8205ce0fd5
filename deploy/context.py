"""Builds what every module's factory is given, from settings: the one place that picks adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from deploy.home import Secrets
from deploy.settings import Settings
from libs.clock import Clock, SystemClock
from libs.config import ConfigError
from libs.ids import IdSource
from libs.process import Context, Part
from libs.rpc.client import as_service, connect, open_connection
from libs.rpc.grants import Grants
from libs.rpc.principal import NODE_DATA, Signer, Verifier

if TYPE_CHECKING:
    import grpc.aio

# A session token outlives many heartbeats; each Sync renews it.
_NODE_TOKEN_SECONDS = 3600.0


class Peers:
    """Channels to the other services: one connection per address, one channel per pair."""

    def __init__(self, settings: Settings, signer: Signer) -> None:
        self._addresses = settings.peers
        self._timeout = settings.rpc.call_timeout_seconds
        self._signer = signer
        self._connections: dict[str, grpc.aio.Channel] = {}
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}

    def connect(self, service: str, peer: str) -> grpc.aio.Channel:
        """The channel by which `service` calls `peer`; nothing is sent before its first call."""
        found = self._channels.get((service, peer))
        if found is None:
            found = self._channels[service, peer] = connect(
                self._address(peer),
                principal_source=as_service(service, self._signer),
                timeout_seconds=self._timeout,
                base=self._connection(self._address(peer)),
            )
        return found

    async def start(self) -> None:
        """Connections are made on demand."""

    async def stop(self) -> None:
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()
        self._channels.clear()

    def _address(self, peer: str) -> str:
        try:
            return self._addresses[peer]
        except KeyError:
            raise ConfigError(f"[peers] has no address for '{peer}'") from None

    def _connection(self, address: str) -> grpc.aio.Channel:
        if address not in self._connections:
            self._connections[address] = open_connection(address)
        return self._connections[address]


def build_context(
    settings: Settings, keys: Secrets, clock: Clock | None = None
) -> tuple[Context, Sequence[Part]]:
    """The context, for service "deploy", and the shared parts in starting order.

    `for_service` narrows it. Raises ConfigError for a URL that no adapter takes.
    """
    time = clock or SystemClock()
    signer = Signer(keys.principal, clock=time)
    peers = Peers(settings, signer)
    stores = settings.stores
    # Adapters are imported by URL, so that a process loads only those it uses.
    from libs import bus, objects, wake

    try:
        the_bus = bus.connect(stores.bus_url, clock=time)
        the_objects = objects.connect(stores.objects_url, key=keys.objects, clock=time)
        the_wake = wake.connect(stores.wake_url)
    except ValueError as error:
        raise ConfigError(f"[stores] {error}") from None
    context = Context(
        service="deploy",
        home=settings.home,
        source=settings.source,
        clock=time,
        ids=IdSource(time),
        bus=the_bus,
        wake=the_wake,
        objects=the_objects,
        signer=signer,
        verifier=Verifier(keys.principal, clock=time),
        node_signer=Signer(
            keys.principal, audience=NODE_DATA, ttl_seconds=_NODE_TOKEN_SECONDS, clock=time
        ),
        node_verifier=Verifier(keys.principal, audience=NODE_DATA, clock=time),
        grants=Grants(keys.grant, clock=time),
        encryption_key=keys.encryption,
        cursor_key=keys.cursor,
        connect=peers.connect,
    )
    shared = [part for part in (the_bus, the_objects, the_wake, peers) if hasattr(part, "start")]
    return context, shared


def for_service(context: Context, service: str) -> Context:
    """The same world as seen by `service`."""
    return replace(context, service=service)
