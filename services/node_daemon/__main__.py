"""The node daemon: `python -m services.node_daemon --grid <address> --home <folder> ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from libs import failpoints
from libs.clock import SystemClock
from libs.config import ConfigError, Environment, load, overlay, read_toml
from libs.errors import GridError
from libs.process import PartFailed, run
from libs.telemetry import setup
from services.node_daemon.config import NodeConfig
from services.node_daemon.identity import NoIdentity
from services.node_daemon.module import build
from services.node_daemon.session import NodeRevoked

BAD_START, REVOKED, IN_USE = 2, 3, 4
_EPILOG = """\
A first start needs an enrolment token; what it gets for it is kept in HOME/identity.json.
SIGTERM lets go of running jobs: they go on, and the next daemon with the same home takes them over
within their lease (30 s). Everything here can also be set in [node] of the --config file, or as
GRID_NODE__<KEY> in the environment; the command line wins.

  python -m services.node_daemon --grid unix:.grid/node.sock --home .grid/node \\
      --enrolment-token-file token --runtime sandbox --gpus simulated:l4:24GiB:4
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until a signal: 0; cannot start: 2; revoked: 3."""
    try:
        config = settings(_parser().parse_args(arguments))
        failpoints.arm(Environment.read().failpoint)
        return serve(config)
    except (ConfigError, NoIdentity, ValueError, OSError) as error:
        return _complain(str(error))
    except GridError as error:
        return _complain(error.message)
    except PartFailed as error:
        if isinstance(error.__cause__, NodeRevoked):
            print(f"node: {error.__cause__}", file=sys.stderr)  # noqa: T201
            return REVOKED
        raise


def serve(config: NodeConfig) -> int:
    """Runs the daemon in `config.home`, which no other daemon may use at the same time."""
    import uvloop

    setup("node", config.log_level)
    config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = _lock(config.home)
    try:
        uvloop.run(_live(config))
    finally:
        lock.close()
    return 0


async def _live(config: NodeConfig) -> None:
    """Built inside the loop: gRPC binds a channel to the loop that it is made in."""
    await run([build(config, SystemClock())], ready=lambda: None)


def settings(found: argparse.Namespace) -> NodeConfig:
    """The file, under the environment, under the command line."""
    home = found.home.absolute()
    source = read_toml(found.config, {"home": str(home)}) if found.config else {}
    source = overlay(source)
    node: dict[str, Any] = dict(source.get("node", {}))
    given = {name: value for name, value in vars(found).items() if value is not None}
    given.pop("config", None)
    if not given["insecure_sandbox"]:  # not given is not the same as refused: the file may say so
        del given["insecure_sandbox"]
    runtime = given.pop("runtime", None)
    if runtime:
        given["runtimes"] = tuple(runtime)
    return load("node", NodeConfig, {"node": {**node, **given, "home": home}})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.node_daemon",
        description="Lends this machine to a grid and runs its jobs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--grid", help="where the grid listens for nodes: unix:<path> or host:port")
    add("--home", type=Path, required=True, help="folder of this node: identity, slots, spools")
    add("--config", type=Path, help="TOML file with a section [node]")
    add("--enrolment-token-file", type=Path, help="file with a one-use token jge_...")
    add(
        "--runtime",
        action="append",
        choices=["sandbox", "docker", "simulated"],
        help="how jobs are run; may be given more than once, best first (default sandbox)",
    )
    add("--gpus", help="nvml, none, or simulated:<model>:<memory>:<count>[,...] (default none)")
    add("--name", help="name for people (default: the machine's)")
    add("--region", help="where this machine is, for jobs that ask for a region")
    add("--slots", type=int, help="jobs at once (default 8)")
    add("--cpu-millis", type=int, help="thousandths of cores offered (default: all)")
    add("--memory-bytes", type=int, help="memory offered (default: nine tenths)")
    add("--disk-bytes", type=int, help="workspace offered (default: slots x slot size)")
    add("--docker-socket", help="the engine's socket (default /var/run/docker.sock)")
    add("--tls-ca-file", type=Path, help="certificate authority of the grid; none means no TLS")
    add(
        "--insecure-sandbox",
        action="store_true",
        help="run jobs although isolation layers are missing; trust every job you run",
    )
    add("--log-level", choices=["debug", "info", "warning", "error"], help="(default info)")
    return parser


def _lock(home: Path) -> Any:
    import fcntl

    file = (home / "daemon.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(f"another daemon runs in {home}; stop it or use another --home") from None
    return file


def _complain(text: str) -> int:
    print(f"node: {text}", file=sys.stderr)  # noqa: T201
    return BAD_START


if __name__ == "__main__":
    sys.exit(main())
