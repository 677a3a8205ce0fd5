"""What the interceptors cost: unary calls per server CPU second over a unix socket.

`python -m tests.bench.rpc_overhead` runs servers as children and loads them in turn, A B C A B C,
from this process with the same bare client: bare grpc.aio; ours with its interceptor list (full);
and ours for a method whose request has field rules, which few have (ruled). It prints calls per
CPU second of each server and how much more CPU a call takes than the bare one.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from libs.rpc import InternalAuthenticator, Principal, Server, Signer, Verifier
from libs.rpc.interceptors import default_interceptors
from tests.support.echo import EchoStub, Text, add_echo

KEY = b"k" * 32
ROUNDS = 15


class Echo:
    async def Say(self, request: Any, _: Any) -> Any:
        return request

    Whisper = Say


async def serve(kind: str, address: str) -> None:
    if kind != "bare":
        chain = default_interceptors(InternalAuthenticator(Verifier(KEY)))
        full = Server(address, [(add_echo, Echo())], chain)
        await full.start()
    else:
        bare = grpc.aio.server()
        add_echo(Echo(), bare)
        bare.add_insecure_port(address)
        await bare.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def load(kind: str, address: str, calls: int, at_once: int) -> None:
    """`calls` unary calls with the metadata that one of our services sends."""
    user = Principal("user", "key_1", "ws_1", frozenset({"echo:say"}), actor="gateway")
    metadata = (
        ("x-request-id", "req_0123456789abcdef01234567"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
        ("jg-principal-bin", Signer(KEY).sign(user)),
    )
    request = Text(value="hello", many=["one", "two"])
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = EchoStub(channel)
        call = stub.Say if kind == "ruled" else stub.Whisper

        async def worker(count: int) -> None:
            for _ in range(count):
                await call(request, metadata=metadata, timeout=10)

        await asyncio.gather(*(worker(calls // at_once) for _ in range(at_once)))


async def measure(calls: int, at_once: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {"bare": [], "full": [], "ruled": []}
    with tempfile.TemporaryDirectory(prefix="jg") as folder:
        servers = {}
        for kind in rates:
            address = f"unix:{Path(folder)}/{kind}.sock"
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.rpc_overhead", "--serve", kind),
                *("--address", address),
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            await process.stdout.readline()
            servers[kind] = (process, address)
            await load(kind, address, 500, at_once)
        try:
            for _ in range(ROUNDS):
                for kind, (process, address) in servers.items():
                    before = cpu_seconds(process.pid)
                    await load(kind, address, calls, at_once)
                    rates[kind].append(calls / (cpu_seconds(process.pid) - before))
        finally:
            for process, _ in servers.values():
                process.terminate()
                await process.wait()
    return rates


def cpu_seconds(pid: int) -> float:
    """Time on a CPU of all threads, in nanosecond steps where the kernel keeps them."""
    counters = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(path.read_text().split()[0]) for path in counters) / 1e9


def report(rates: dict[str, list[float]]) -> None:
    for kind, found in rates.items():
        print(f"{kind}: {statistics.median(found):,.0f} unary calls per server CPU second")
    for kind in ("full", "ruled"):
        ratios = [bare / mine for bare, mine in zip(rates["bare"], rates[kind], strict=True)]
        best = max(rates["bare"]) / max(rates[kind])
        print(
            f"{kind}: {statistics.median(ratios) - 1:.0%} more CPU per call than bare by the"
            f" median, {best - 1:.0%} by the best round of each"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--serve", choices=["bare", "full", "ruled"])
    parser.add_argument("--address", default="")
    parser.add_argument("--calls", type=int, default=3200)
    parser.add_argument("--at-once", type=int, default=64)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.serve, options.address))
        return
    report(uvloop.run(measure(options.calls, options.at_once)))


if __name__ == "__main__":
    main()
