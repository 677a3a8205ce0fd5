"""A grid and its node daemons as processes, and a client with a key: what a scenario needs.

async with stack(runtime="sandbox") as whole:
    job = await whole.api.call("POST", "/v1/jobs", {...})
    await whole.nodes[0].kill()
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from junglegrid.billing.v1 import billing_internal_service_pb2 as billing_pb
from junglegrid.billing.v1 import billing_internal_service_pb2_grpc as billing_grpc

from deploy.up import bootstrap
from deploy.up import node as local
from deploy.up.api import Api
from tests.support.grid import ROOT, GridChild, grid_child

ONLINE_SECONDS = 30.0
CREDIT_MICROS = 100_000_000_000
GPUS = "simulated:l4:24GiB:8"
FINAL = ("completed", "failed", "rejected", "cancelled")


class NodeChild:
    """A node daemon in a process of its own, with a home that outlives it."""

    def __init__(
        self, grid: GridChild, name: str, runtime: str, gpus: str, more: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.home = grid.home / name
        self.log = grid.home / f"{name}.log"
        self.token_file = grid.home / f"{name}.token"
        self._arguments = (
            *(sys.executable, "-m", "services.node_daemon"),
            *("--grid", grid.node_address, "--home", str(self.home)),
            *("--runtime", runtime, "--gpus", gpus, "--name", name, "--region", "local"),
            *("--enrolment-token-file", str(self.token_file)),
            *more,
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The child; raises if it was never started."""
        assert self._process is not None
        return self._process

    async def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Returns when its session is open."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(ONLINE_SECONDS):
            async for line in self._process.stdout:
                if local.READY.encode() in line:
                    return
        raise AssertionError(f"the node did not start:\n{self.log.read_text()[-3000:]}")

    async def kill(self) -> None:
        """SIGKILL of the daemon alone: its shims go on."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and the end of everything it started."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(20):
                    await self._process.wait()
            except TimeoutError:
                await self.kill()


@dataclass(slots=True)
class Stack:
    """The whole: `api` speaks with a key of all scopes in its own workspace."""

    grid: GridChild
    nodes: list[NodeChild]
    credentials: bootstrap.Credentials
    channel: grpc.aio.Channel
    api: Api

    async def submit(self, **fields: Any) -> str:
        """Submits a small job with `fields` over the defaults; its id."""
        return str((await self.api.call("POST", "/v1/jobs", draft(**fields)))["job_id"])

    async def finished(self, job_id: str, seconds: float = 60.0) -> dict[str, Any]:
        """The job once it is final. Follows the live stream, so that nothing polls."""
        async with asyncio.timeout(seconds):
            while True:
                async for name, _ in self.api.events(f"/v1/jobs/{job_id}/logs/live"):
                    if name == "terminal":
                        break
                job: dict[str, Any] = await self.api.call("GET", f"/v1/jobs/{job_id}")
                if job["status"] in FINAL:
                    return job

    async def settled(self, job_id: str, seconds: float = 20.0) -> dict[str, Any]:
        """The job once billing has told its cost and holds nothing more for it."""
        async with asyncio.timeout(seconds):
            while True:
                job: dict[str, Any] = await self.api.call("GET", f"/v1/jobs/{job_id}")
                billing = job["billing"]
                if billing["final_cost_usd"] is not None and not billing["reserved_usd"]:
                    return job
                await asyncio.sleep(0.02)

    async def lines(self, job_id: str) -> list[dict[str, Any]]:
        """Every stored entry, page by page."""
        cursor, more, found = 0, True, []
        while more:
            page = await self.api.call("GET", f"/v1/jobs/{job_id}/logs?cursor={cursor}&limit=500")
            found += page["items"]
            cursor, more = page["next_cursor"], page["has_more"]
        return found


def draft(**fields: Any) -> dict[str, Any]:
    """A request that the strict policy accepts."""
    return {
        "name": "scenario",
        "image": "pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime",
        "workload_type": "batch",
        "model_size_gb": 1,
        "command": ["python", "-c", "print(42)"],
        **fields,
    }


def python(text: str) -> list[str]:
    """A command that runs `text`."""
    return ["python", "-u", "-c", text]


@asynccontextmanager
async def stack(
    *,
    runtime: str = "simulated",
    gpus: str = GPUS,
    nodes: int = 1,
    arguments: Sequence[str] = (),
    overrides: Mapping[str, str] | None = None,
) -> AsyncIterator[Stack]:
    """A running grid with enrolled, online nodes, each with `arguments` more on its command line.
    Everything is stopped at the end."""
    async with AsyncExitStack() as exits:
        grid = await exits.enter_async_context(grid_child(overrides))
        channel = bootstrap.open_internal(grid.home)
        exits.push_async_callback(channel.close)
        found = await bootstrap.credentials(channel, grid.home, grid.url)
        await add_credit(channel, found.workspace_id)
        made = [NodeChild(grid, f"node{index}", runtime, gpus, arguments) for index in range(nodes)]
        for node in made:
            exits.push_async_callback(node.stop)
            await enrol(node, channel, found.workspace_id)
        assert await bootstrap.online(channel, ONLINE_SECONDS) is not None
        api = await exits.enter_async_context(Api(grid.url, found.api_key))
        yield Stack(grid, made, found, channel, api)


async def add_credit(channel: grpc.aio.Channel, workspace_id: str) -> None:
    """Enough for every hold of many jobs at once."""
    stub = billing_grpc.BillingInternalServiceStub(channel)
    await stub.Credit(
        billing_pb.CreditRequest(
            workspace_id=workspace_id,
            reference=f"tests:{workspace_id}",
            amount_micros=CREDIT_MICROS,
            kind="test_topup",
        )
    )


async def enrol(node: NodeChild, channel: grpc.aio.Channel, workspace_id: str) -> None:
    """Gives a new node its one-use token and starts it."""
    token = await bootstrap.enrolment(channel, workspace_id)
    await asyncio.to_thread(_write_secret, node.token_file, token)
    await node.start()


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
