"""THE composition root: `python -m deploy.run all | gateway | <service> [--config FILE]`.

Nothing else knows whether the grid is one process or many: the same modules are built from the
same context, and speak to each other by gRPC and records in both.
"""

from __future__ import annotations

import argparse
import errno
import gc
import importlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.home import HomeInUse, HomeLock, HomeUnusable, load_secrets, prepare
from deploy.settings import Settings, environment_defaults, read
from libs import failpoints
from libs.config import ConfigError, Environment

if TYPE_CHECKING:
    from libs.process import Context, Module, Part

Modules = Mapping[str, tuple[str, tuple[str, ...]]]

# Name -> (factory, the peers it calls). Order is the order of starting.
MODULES: Modules = {
    "identity": ("services.identity.module:build", ()),
    "billing": ("services.billing.module:build", ("jobs",)),
    "nodes": ("services.nodes.module:build", ("jobs", "scheduling")),
    "scheduling": ("services.scheduling.module:build", ("nodes",)),
    "logs": ("services.logs.module:build", ("jobs",)),
    "artifacts": ("services.artifacts.module:build", ("jobs",)),
    "webhooks": ("services.webhooks.module:build", ("jobs",)),
    "jobs": (
        "services.jobs.module:build",
        ("scheduling", "billing", "logs", "artifacts", "nodes"),
    ),
    "gateway": (
        "gateway.module:build",
        ("identity", "jobs", "logs", "artifacts", "billing", "nodes", "scheduling", "webhooks"),
    ),
}
EDGE = "gateway"
BAD_START = 2
NODE_ONLY = "this listener serves nodes only"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, with the environment's values filled in."""

    target: str
    config: Path
    home: Path
    port: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until a signal. Returns 0, or 2 with one line on standard error if it cannot start."""
    environment = Environment.read()
    options = parse(arguments, environment)
    gc.disable()  # importing makes little garbage, and searching for it takes a sixth of the start
    try:
        failpoints.arm(environment.failpoint)
        return start(options)
    except (ConfigError, HomeInUse, HomeUnusable, failpoints.FailpointSpecError) as error:
        return complain(str(error))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, None):  # None: a part's own words
            raise
        return complain(_taken(error, options.port))
    finally:
        gc.enable()


def parse(arguments: Sequence[str] | None, environment: Environment) -> Options:
    """Reads the command line; exits with a usage line when it makes no sense."""
    config, home, port = environment_defaults(environment)
    parser = argparse.ArgumentParser(prog="python -m deploy.run", description="Starts the grid.")
    parser.add_argument("target", choices=["all", *MODULES], help="what this process runs")
    parser.add_argument("--config", type=Path, default=config, help="TOML file of settings")
    parser.add_argument("--home", type=Path, default=home, help="folder of all state")
    parser.add_argument("--port", type=_port, default=port, help="HTTP port of the gateway")
    found = parser.parse_args(arguments)
    return Options(found.target, found.config, found.home, found.port)


def start(options: Options) -> int:
    """Prepares home, settings and loop, and serves."""
    home = prepare(options.home)
    settings = read(options.config, home, options.port)
    lock = HomeLock(home, options.target)
    lock.take()
    from libs.telemetry import setup

    service = "grid" if options.target == "all" else options.target
    setup(service, settings.telemetry.level, settings.telemetry.json)
    _export_traces(settings, service)
    import uvloop

    names = list(MODULES) if options.target == "all" else [options.target]
    try:
        uvloop.run(serve(settings, names, announce=lambda: _announce(settings, names)))
    finally:
        lock.release()
    return 0


async def serve(settings: Settings, names: Sequence[str], *, announce: Callable[[], None]) -> None:
    """Builds the modules `names` and runs them until a signal."""
    from libs.process import run

    _, parts = assemble(settings, names)

    def ready() -> None:
        announce()
        threading.Thread(target=warm, args=(parts,), name="warm", daemon=True).start()

    await run(parts, ready=ready)


def warm(parts: Sequence[Part]) -> None:
    """What the first request would otherwise wait for, done beside the loop once all is up."""
    from libs.rpc import Server
    from libs.rpc.validate import warm as compile_rules

    for part in parts:
        if isinstance(part, Server):
            compile_rules(part.methods)


def assemble(
    settings: Settings, names: Sequence[str], modules: Modules = MODULES
) -> tuple[Context, list[Part]]:
    """The shared context, and all parts of `names` in starting order. Nothing is started yet."""
    from deploy.context import build_context

    check_peers(settings, names, modules)
    context, shared = build_context(settings, load_secrets(settings.home))
    built = [build(context, name, modules[name][0]) for name in names]
    return context, [*shared, *arrange(settings, context, built)]


def check_peers(settings: Settings, names: Sequence[str], modules: Modules) -> None:
    """Raises ConfigError when a module needs a peer that has no address."""
    for name in names:
        for peer in modules[name][1]:
            if peer not in settings.peers:
                raise ConfigError(f"[peers] needs an address for '{peer}', which {name} calls")


def build(context: Context, name: str, path: str) -> Module:
    """Calls the factory at `path` ("package.module:function") with the context of `name`."""
    from deploy.context import for_service

    module, _, function = path.partition(":")
    made: Module = getattr(importlib.import_module(module), function)(for_service(context, name))
    return made


def arrange(settings: Settings, context: Context, modules: Sequence[Module]) -> list[Part]:
    """All parts in starting order: stores, listeners, what acts by itself, the edge.

    A listener must not answer before the stores behind it are open, and a loop or consumer must not
    call a peer before its listener is up. Stopping is the reverse.
    """
    from libs.bus import Consumer
    from libs.process import TaskPart

    stores: list[Part] = []
    active: list[Part] = []
    edge: list[Part] = []
    for module in modules:
        for part in module.parts:
            if module.name == EDGE:
                edge.append(part)
            else:
                (active if isinstance(part, TaskPart | Consumer) else stores).append(part)
    return [*stores, *listeners(settings, context, modules), *active, *edge]


def listeners(settings: Settings, context: Context, modules: Sequence[Module]) -> list[Part]:
    """The internal listener and, where some module serves daemons, the node listener."""
    from libs.rpc import InternalAuthenticator, NodeAuthenticator, Server, default_interceptors

    found: list[Part] = []
    grace = settings.listeners.stop_grace_seconds
    outside = [each for each in (settings.listeners.node, settings.listeners.node_tcp) if each]
    limit = settings.rpc.unary_deadline_seconds
    internal = [servicer for module in modules for servicer in module.internal]
    if internal:
        chain = default_interceptors(
            InternalAuthenticator(context.verifier), unary_deadline_seconds=limit
        )
        address = settings.listeners.internal
        found.append(
            Server(address, internal, chain, name="internal", tools=True, grace_seconds=grace)
        )
    node = [servicer for module in modules for servicer in module.node]
    if node:
        verify = next((each.node_verify for each in modules if each.node_verify), None)
        chain = default_interceptors(
            NodeAuthenticator(context.node_verifier, verify), unary_deadline_seconds=limit
        )
        found.append(
            Server(
                outside,
                node,
                chain,
                name="node",
                refuse_unknown=NODE_ONLY,
                grace_seconds=grace,
            )
        )
    return found


def complain(text: str) -> int:
    """One clear line, and the exit code of a start that cannot succeed as it is."""
    print(f"grid: {text}", file=sys.stderr)
    return BAD_START


def _announce(settings: Settings, names: Sequence[str]) -> None:
    # What exists now lives as long as the process: the collector need never look at it.
    gc.freeze()
    gc.enable()
    where = settings.url if EDGE in names else settings.listeners.internal
    print(f"ready {where}", flush=True)


def _export_traces(settings: Settings, service: str) -> None:
    endpoint = settings.telemetry.otlp_endpoint
    if not endpoint:
        return
    try:
        exporters = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError:
        raise ConfigError(
            "telemetry.otlp_endpoint needs the package opentelemetry-exporter-otlp-proto-http"
        ) from None
    from libs.telemetry import trace

    trace.export_to(exporters.OTLPSpanExporter(endpoint=endpoint), service)


def _taken(error: OSError, port: int) -> str:
    if type(error) is not OSError:  # one of ours, which names its address
        return error.strerror or str(error)
    return f"port {port} is taken; stop what uses it or set GRID_PORT to another port"


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return port


if __name__ == "__main__":
    sys.exit(main())
