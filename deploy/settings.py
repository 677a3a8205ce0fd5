"""The settings that belong to the composition and to no service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libs.config import Environment, load, overlay, read_toml

EMBEDDED = Path(__file__).parent / "config" / "embedded.toml"
HOME = ".grid"
PORT = 8080


@dataclass(frozen=True, slots=True)
class Stores:
    """Where state lives, by URL; `{service}` in `database_url` is the service's name."""

    database_url: str
    bus_url: str
    objects_url: str
    wake_url: str = "memory://"


@dataclass(frozen=True, slots=True)
class Listeners:
    """gRPC addresses: `unix:<path>` or `host:port`. `node_tcp` is off when empty."""

    internal: str
    node: str
    node_tcp: str = ""
    stop_grace_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Calls:
    """Time limits: of a unary call that came without one, and of one that a service makes."""

    unary_deadline_seconds: float = 30.0
    call_timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Telemetry:
    """`json` unset means JSON unless standard error is a terminal."""

    level: str = "info"
    json: bool | None = None
    otlp_endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """All of the above, and the whole file for the services to read their own sections from."""

    home: Path
    url: str
    source: Mapping[str, Any]
    stores: Stores
    listeners: Listeners
    rpc: Calls
    telemetry: Telemetry
    peers: Mapping[str, str] = field(default_factory=dict)


def read(config: Path, home: Path, port: int, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in file `config`, with `{home}` and `{port}` put in and overrides laid over.

    Raises ConfigError, which names the file or the setting.
    """
    variables = {"home": str(home), "port": str(port)}
    source = overlay(read_toml(config, variables), environ)
    return Settings(
        home=home,
        url=f"http://127.0.0.1:{port}",
        source=source,
        stores=load("stores", Stores, source),
        listeners=load("listeners", Listeners, source),
        rpc=load("rpc", Calls, source),
        telemetry=load("telemetry", Telemetry, source),
        peers={name: str(address) for name, address in source.get("peers", {}).items()},
    )


def environment_defaults(environment: Environment) -> tuple[Path, Path, str]:
    """Configuration file, home and port as the environment has them, or the defaults."""
    return (
        Path(environment.config or EMBEDDED),
        Path(environment.home or HOME),
        environment.port or str(PORT),
    )
