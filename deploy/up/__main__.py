"""`make up`, or `python -m deploy.up --help`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from deploy.home import HomeUnusable, prepare
from deploy.settings import environment_defaults
from deploy.up import bootstrap, node, quickstart
from deploy.up.api import Api, ApiError
from deploy.up.children import Child, ChildFailed
from deploy.up.console import Console
from libs.config import Environment

GRID_SECONDS = 60.0
NODE_SECONDS = 60.0
BAD_START = 2


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, with the environment's values filled in."""

    home: Path
    port: int
    node: node.NodeOptions
    once: bool
    quickstart: bool


def main() -> int:
    """0 when stopped by Ctrl-C (or done, with --once); 1 when a part died; 2 for a bad start."""
    options = _parse()
    console = Console()
    try:
        return asyncio.run(_run(options, console))
    except (ChildFailed, HomeUnusable, node.NodeUnavailable) as error:
        console.fail(str(error))
        return BAD_START
    except ApiError as error:
        console.fail(f"The quickstart was refused: {error}")
        return 1
    except KeyboardInterrupt:
        return 0


def _parse() -> Options:
    _, home, port = environment_defaults(Environment.read())
    parser = argparse.ArgumentParser(
        prog="python -m deploy.up",
        description="Starts the grid on this machine, runs the quickstart job and keeps serving.",
    )
    parser.add_argument("--home", type=Path, default=home, help="all state; env GRID_HOME")
    parser.add_argument("--port", type=int, default=int(port), help="HTTP port; env GRID_PORT")
    parser.add_argument("--once", action="store_true", help="stop after the quickstart")
    parser.add_argument("--no-quickstart", action="store_true", help="only start and serve")
    node.add_arguments(parser)
    found = parser.parse_args()
    return Options(
        found.home, found.port, node.from_arguments(found), found.once, not found.no_quickstart
    )


async def _run(options: Options, console: Console) -> int:
    home = prepare(options.home)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    _refuse_taken(options.port)
    grid = Child("grid", ["deploy.run", "all"], home / "logs" / "grid.log")
    daemon = Child("node", node.command(home, options.node), home / "logs" / "node.log")
    try:
        work = asyncio.create_task(_serve(options, home, console, (grid, daemon)))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        work.cancel()
        console.line()
        console.step("stopping")
        return 0
    finally:
        await daemon.stop()
        await grid.stop()


async def _serve(
    options: Options, home: Path, console: Console, children: tuple[Child, Child]
) -> int:
    grid, daemon = children
    url = f"http://127.0.0.1:{options.port}"
    environment = {"GRID_HOME": str(home), "GRID_PORT": str(options.port)}
    began = time.monotonic()
    await grid.start(ready="ready http", seconds=GRID_SECONDS, environment=environment)
    console.step(f"grid is ready at {url} (in {time.monotonic() - began:.1f} s)", "green")
    channel = bootstrap.open_internal(home)
    try:
        found = await bootstrap.credentials(channel, home, url)
        await _start_node(home, console, daemon, channel, found, options.node)
    finally:
        await channel.close()
    if options.quickstart and not await _first_job(found, console, home):
        return 1
    if options.once:
        return 0
    _advise(console, home, url)
    return await _watch(console, children)


async def _start_node(
    home: Path,
    console: Console,
    daemon: Child,
    channel: grpc.aio.Channel,
    found: bootstrap.Credentials,
    options: node.NodeOptions,
) -> None:
    token = None
    if not node.enrolled(home):
        token = await bootstrap.enrolment(channel, found.workspace_id)
    with node.token_file(home, token):
        await daemon.start(ready=node.READY, seconds=NODE_SECONDS, environment={})
    summary = await bootstrap.online(channel, NODE_SECONDS)
    if summary is None:
        raise ChildFailed(f"The node did not come online; see {home}/logs/node.log")
    console.step(f"node {summary.node_id} is online: {node.describe(summary)}", "green")
    if summary.node.inventory.simulated:
        console.step(
            "its GPUs are SIMULATED: no such devices exist here, jobs run on CPU", "yellow"
        )


async def _first_job(found: bootstrap.Credentials, console: Console, home: Path) -> bool:
    async with Api(found.url, found.api_key) as api:
        outcome = await quickstart.run(api, console, home / "quickstart")
        balance = await api.call("GET", "/v1/billing/balance")
    cost = "not settled yet" if outcome.cost_usd is None else f"{outcome.cost_usd:.6f} USD"
    console.step(f"cost {cost}; {balance['available']:.4f} USD of credit left")
    return outcome.status == "completed" and outcome.file is not None


def _advise(console: Console, home: Path, url: str) -> None:
    console.line()
    console.line("  Next:")
    console.line(
        f"    . {home}/{bootstrap.CREDENTIALS}      # JUNGLE_GRID_API and JUNGLE_GRID_API_KEY"
    )
    console.line('    curl -sS -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" \\')
    console.line('      "$JUNGLE_GRID_API/v1/jobs?limit=5"')
    console.line(f"    open {url}/docs                  # every route, and how to call it")
    console.line("  Serving until Ctrl-C.")


async def _watch(console: Console, children: tuple[Child, Child]) -> int:
    ends = {asyncio.create_task(child.wait()): child for child in children}
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        child = ends[task]
        console.fail(f"The {child.name} ended with status {task.result()}:\n{child.last_words()}")
    return 1


def _refuse_taken(port: int) -> None:
    """One clear line before anything is started, rather than a log to read."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ChildFailed(
                f"Port {port} cannot be used ({os.strerror(error.errno or 0)}): stop what listens "
                f"there, or choose another with GRID_PORT={port + 1} make up"
            ) from None


if __name__ == "__main__":
    sys.exit(main())
