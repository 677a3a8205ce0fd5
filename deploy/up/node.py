"""The local node daemon of `make up`: which runtime, which GPUs, and its one-use token."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from junglegrid.nodes.v1 import node_internal_service_pb2 as nodes_pb

# What the daemon prints once its session is open.
READY = "node online"
SIMULATED = "simulated:l4:24GiB:4"
_FOLDER = "node"
_IDENTITY = "identity.json"
_TOKEN = "enrolment.token"


class NodeUnavailable(Exception):
    """This machine cannot run jobs as asked; the text says what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """`gpus` is `nvml`, `simulated:<type>:<memory>:<count>` or `auto`."""

    runtime: str
    gpus: str
    insecure_sandbox: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the local node."""
    parser.add_argument(
        "--runtime",
        choices=["sandbox", "docker", "simulated"],
        default=os.environ.get("GRID_RUNTIME", "sandbox"),
        help="how the local node runs jobs; env GRID_RUNTIME (default sandbox)",
    )
    parser.add_argument(
        "--gpus",
        default=os.environ.get("GRID_GPUS", "auto"),
        help=f"nvml, {SIMULATED}, or auto: nvml where a driver is, else simulated; env GRID_GPUS",
    )
    parser.add_argument(
        "--insecure-sandbox",
        action="store_true",
        default=os.environ.get("GRID_INSECURE_SANDBOX") == "1",
        help="run jobs although isolation layers are missing (no root); trust every job you run",
    )


def from_arguments(found: argparse.Namespace) -> NodeOptions:
    """The options as given, with `auto` decided."""
    gpus = ("nvml" if _has_driver() else SIMULATED) if found.gpus == "auto" else found.gpus
    return NodeOptions(found.runtime, gpus, found.insecure_sandbox)


def command(home: Path, options: NodeOptions) -> list[str]:
    """Arguments of the daemon; raises NodeUnavailable when it would refuse to start."""
    if options.runtime == "sandbox" and os.geteuid() != 0 and not options.insecure_sandbox:
        raise NodeUnavailable(
            "The sandbox needs root: without it there are no per-job user ids, no cgroup limits "
            "and no size-limited workspaces.\nRun as root, or use GRID_RUNTIME=docker, or accept "
            "the missing layers for jobs you trust: GRID_INSECURE_SANDBOX=1 make up"
        )
    arguments = ["services.node_daemon", "--grid", f"unix:{home}/node.sock"]
    arguments += ["--home", str(home / _FOLDER), "--runtime", options.runtime]
    arguments += ["--gpus", options.gpus, "--name", "local", "--region", "local"]
    arguments += ["--enrolment-token-file", str(home / _TOKEN)]
    return [*arguments, "--insecure-sandbox"] if options.insecure_sandbox else arguments


def enrolled(home: Path) -> bool:
    """The daemon has an identity from an earlier run."""
    return (home / _FOLDER / _IDENTITY).exists()


@contextmanager
def token_file(home: Path, token: str | None) -> Iterator[None]:
    """Holds the token in a file that only its owner can read, for as long as the block runs."""
    path = home / _TOKEN
    if token is not None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def describe(summary: nodes_pb.NodeSummary) -> str:
    """`4 x NVIDIA L4 (simulated) 24 GB, 2 cores, runtime sandbox`."""
    inventory = summary.node.inventory
    cores = inventory.cpu_millis / 1000
    parts = [f"{cores:g} cores", f"runtime {'/'.join(inventory.runtimes)}"]
    if inventory.gpus:
        first = inventory.gpus[0]
        memory = first.memory_bytes / 2**30
        parts.insert(0, f"{len(inventory.gpus)} x {first.name} {memory:.0f} GB")
    return ", ".join(parts)


def _has_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()
