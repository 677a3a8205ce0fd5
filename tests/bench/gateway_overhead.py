"""P4: what the gateway costs, in requests per CPU second of its process.

`python -m tests.bench.gateway_overhead` starts a backend, our gateway and a plain aiohttp and
grpc.aio server written by hand for the same two routes; loads the two in turn, A B A B, and prints
requests per CPU second and the ratio. Both check a key, pass a principal on and answer the same
JSON, which is compared first. The plain one does nothing else: no limits, no request id, no
metrics, no access log.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import orjson
import uvloop
from aiohttp import web
from junglegrid.identity.v1 import identity_internal_service_pb2 as identity_pb
from junglegrid.identity.v1 import identity_internal_service_pb2_grpc as identity_grpc
from junglegrid.jobs.v1 import job_draft_pb2 as draft_pb
from junglegrid.jobs.v1 import job_pb2, job_service_pb2_grpc
from junglegrid.jobs.v1 import job_service_pb2 as pb
from junglegrid.jobs.v1 import job_view_pb2 as view_pb

from gateway import contracts
from gateway.app import Edge, Gateway
from gateway.auth import Keys
from gateway.config import GatewayConfig
from gateway.errors import STATUS_BY_CODE, STATUS_BY_REASON
from gateway.middleware import AccessLog
from gateway.module import limits, serve
from gateway.transcoder.errors import Statuses
from libs.api_key import mint
from libs.clock import SystemClock
from libs.rpc import Principal, Signer, as_service, connect, open_connection
from tests.bench.rpc_overhead import cpu_seconds

KEY = mint(entropy=lambda count: b"\x07" * count).text
SECRET = b"k" * 32
ROUNDS = 9
BODY = orjson.dumps(
    {
        "name": "artifact-demo",
        "image": "pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime",
        "workload_type": "batch",
        "model_size_gb": 1,
        "command": ["python", "-c", "print(42)"],
        "expected_artifacts": ["/workspace/artifacts/transcript.txt"],
        "environment": {"A": "1", "B": "two"},
        "optimize_for": "balanced",
        "constraints": {"max_price_per_hour": 2.5, "latency_priority": "balanced"},
    }
)
STATUS = {1: "pending", 2: "queued", 3: "assigned", 4: "running", 5: "completed"}
PHASE = {2: "queued", 10: "running", 12: "terminal"}


def job_view() -> view_pb.JobView:
    """A running job as clients poll it."""
    view = view_pb.JobView(
        job_id="job_01JD9VX7M5N5T6Y8Q2R4S6T8V0",
        name="artifact-demo",
        image="pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime",
        workload_type="batch",
        status=job_pb2.JOB_STATUS_RUNNING,
        phase=job_pb2.JOB_PHASE_RUNNING,
        status_message="The command runs.",
        wait_duration_seconds=3,
        assigned_node_id="node_1",
        provider="local",
        cost_usd=1250,
    )
    for name in ("created_at", "queued_at", "started_at", "phase_started_at"):
        getattr(view, name).FromJsonString("2026-06-02T12:00:00.125Z")
    view.phase_last_updated_at.FromJsonString("2026-06-02T12:00:01Z")
    view.scheduling.state = "running"
    view.scheduling.worker_assigned = True
    view.attempts.add(attempt=1, state="running", node_id="node_1")
    view.billing.hourly_rate_usd = 1_200_000
    view.billing.currency = "USD"
    return view


class Jobs(job_service_pb2_grpc.JobServiceServicer):
    """Answers at once."""

    async def GetJob(self, request: Any, context: Any) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=job_view())

    async def SubmitJob(self, request: Any, context: Any) -> pb.SubmitJobResponse:
        reply = pb.SubmitJobResponse(job_id="job_01JD9VX7M5N5T6Y8Q2R4S6T8V0")
        reply.status = job_pb2.JOB_STATUS_QUEUED
        reply.queued_at.FromJsonString("2026-06-02T12:00:00Z")
        return reply


class Identity(identity_grpc.IdentityInternalServiceServicer):
    """Knows one key and beats."""

    async def ResolveKey(self, request: Any, context: Any) -> identity_pb.ResolveKeyResponse:
        return identity_pb.ResolveKeyResponse(
            key_id="key_1", workspace_id="ws_1", scopes=["jobs:read", "jobs:write"]
        )

    async def WatchRevocations(
        self, request: Any, context: Any
    ) -> AsyncIterator[identity_pb.WatchRevocationsResponse]:
        while True:
            yield identity_pb.WatchRevocationsResponse()
            await asyncio.sleep(1)


async def backend(address: str) -> None:
    server = grpc.aio.server()
    jobs, identity = Jobs(), Identity()  # type: ignore[abstract] # only what is asked here
    job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    identity_grpc.add_IdentityInternalServiceServicer_to_server(identity, server)
    server.add_insecure_port(address)
    await server.start()
    await ready(0)


async def ours(address: str) -> None:
    config = GatewayConfig(port=0)
    channel = connect(address, principal_source=as_service("gateway", Signer(SECRET)))
    keys = Keys(channel, config, SystemClock())
    log = AccessLog(config, lambda data: None)
    gateway = Gateway(config, keys, Statuses(STATUS_BY_REASON, STATUS_BY_CODE), log)
    wanted = ("/v1/jobs", "/v1/jobs/{job_id}")
    routes = [route for route in contracts.public_routes() if route.path in wanted]
    serve(gateway, routes, {"jobs": channel}, limits(config))
    edge = Edge(config, gateway)
    await keys.start()
    await edge.start()
    await ready(edge.port)


async def plain(address: str) -> None:
    """By hand, as one would write it for these two routes and no others."""
    user = Principal("user", "key_1", "ws_1", frozenset({"jobs:read", "jobs:write"}))
    known = {f"Bearer {KEY}": (("jg-principal-bin", Signer(SECRET).sign(user)),)}
    stub = job_service_pb2_grpc.JobServiceStub(open_connection(address))

    async def get(request: web.Request) -> web.Response:
        metadata = known.get(request.headers.get("Authorization", ""))
        if metadata is None:
            return web.json_response({"code": "UNAUTHORIZED"}, status=401)
        asked = pb.GetJobRequest(job_id=request.match_info["job_id"])
        found = await stub.GetJob(asked, timeout=30, metadata=metadata)
        return web.Response(body=dumps(view_dict(found.job)), content_type="application/json")

    async def post(request: web.Request) -> web.Response:
        metadata = known.get(request.headers.get("Authorization", ""))
        if metadata is None:
            return web.json_response({"code": "UNAUTHORIZED"}, status=401)
        asked = pb.SubmitJobRequest(draft=draft(orjson.loads(await request.read())))
        reply = await stub.SubmitJob(asked, timeout=30, metadata=metadata)
        return web.Response(
            body=dumps(submit_dict(reply)), status=202, content_type="application/json"
        )

    app = web.Application()
    app.router.add_get("/v1/jobs/{job_id}", get)
    app.router.add_post("/v1/jobs", post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await ready(runner.addresses[0][1])


def dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def when(stamp: Any) -> datetime:
    return datetime.fromtimestamp(stamp.seconds, UTC).replace(microsecond=stamp.nanos // 1000)


def maybe(message: Any, name: str) -> datetime | None:
    return when(getattr(message, name)) if message.HasField(name) else None


def draft(data: dict[str, Any]) -> draft_pb.JobDraft:
    made = draft_pb.JobDraft(
        name=data["name"],
        image=data["image"],
        workload_type=data["workload_type"],
        command=data["command"],
        expected_artifacts=data["expected_artifacts"],
        environment=data["environment"],
        optimize_for=data["optimize_for"],
        model_size_gb=data["model_size_gb"],
    )
    wanted = data["constraints"]
    made.constraints.max_price_per_hour = int(wanted["max_price_per_hour"] * 1_000_000)
    made.constraints.latency_priority = wanted["latency_priority"]
    return made


def submit_dict(m: pb.SubmitJobResponse) -> dict[str, Any]:
    return {
        "job_id": m.job_id,
        "id": m.job_id,
        "status": STATUS[m.status],
        "queued_at": when(m.queued_at),
        "execution_route": m.execution_route,
        "route_reason": m.route_reason,
        "requested_route": m.requested_route,
        "initial_route": m.initial_route,
        "effective_route": m.effective_route,
        "constraint_mask": list(m.constraint_mask),
        "estimated_hourly_rate_usd": m.estimated_hourly_rate_usd / 1_000_000,
        "reserved_usd": m.reserved_usd / 1_000_000,
    }


def view_dict(m: view_pb.JobView) -> dict[str, Any]:
    cost = m.cost_usd / 1_000_000 if m.HasField("cost_usd") else None
    done, updated = maybe(m, "finished_at"), when(m.phase_last_updated_at)
    return {
        "job_id": m.job_id,
        "id": m.job_id,
        "name": m.name,
        "image": m.image,
        "workload_type": m.workload_type,
        "status": STATUS[m.status],
        "phase": PHASE[m.phase],
        "execution_phase": PHASE[m.phase],
        "status_message": m.status_message,
        "status_reason": m.status_reason,
        "phase_started_at": when(m.phase_started_at),
        "phase_last_updated_at": updated,
        "last_status_update": updated,
        "wait_duration_seconds": m.wait_duration_seconds,
        "delayed_start": m.delayed_start,
        "delay_reason": None,
        "scheduling": {
            "state": m.scheduling.state,
            "worker_assigned": m.scheduling.worker_assigned,
            "delayed_start": m.scheduling.delayed_start,
        },
        "artifacts_ready": m.artifacts_ready,
        "retry_count": m.retry_count,
        "attempts": [
            {
                "attempt": a.attempt,
                "state": a.state,
                "node_id": a.node_id,
                "assigned_at": maybe(a, "assigned_at"),
                "started_at": maybe(a, "started_at"),
                "finished_at": maybe(a, "finished_at"),
                "exit_code": a.exit_code if a.HasField("exit_code") else None,
                "reason": a.reason,
            }
            for a in m.attempts
        ],
        "created_at": when(m.created_at),
        "queued_at": maybe(m, "queued_at"),
        "started_at": maybe(m, "started_at"),
        "finished_at": done,
        "completed_at": done,
        "exit_code": m.exit_code if m.HasField("exit_code") else None,
        "timed_out": m.timed_out,
        "failure": None,
        "assigned_node_id": m.assigned_node_id,
        "provider": m.provider,
        "selected_region": m.selected_region,
        "billing": {
            "final_cost_usd": None,
            "reserved_usd": m.billing.reserved_usd / 1_000_000,
            "hourly_rate_usd": m.billing.hourly_rate_usd / 1_000_000,
            "billed_seconds": m.billing.billed_seconds,
            "currency": m.billing.currency,
        },
        "cost_usd": cost,
        "actual_cost_usd": cost,
        "gpu": None,
        "requested_route": m.requested_route,
        "initial_route": m.initial_route,
        "effective_route": m.effective_route,
        "route_status": m.route_status,
        "runtime": m.runtime,
        "simulated": m.simulated,
        "duration_ms": m.duration_ms if m.HasField("duration_ms") else None,
    }


async def ready(port: int) -> None:
    print(port, flush=True)
    await asyncio.Event().wait()


ROLES = {"backend": backend, "ours": ours, "plain": plain}
KINDS = ("get", "post")


async def ask(http: aiohttp.ClientSession, base: str, kind: str) -> Any:
    if kind == "get":
        async with http.get(f"{base}/v1/jobs/job_01JD9VX7M5N5T6Y8Q2R4S6T8V0") as reply:
            return reply.status, await reply.read()
    async with http.post(f"{base}/v1/jobs", data=BODY) as reply:
        return reply.status, await reply.read()


async def load(base: str, kind: str, calls: int, at_once: int) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=at_once)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as http:

        async def worker(count: int) -> None:
            for _ in range(count):
                await ask(http, base, kind)

        await asyncio.gather(*(worker(calls // at_once) for _ in range(at_once)))


async def compare(bases: dict[str, str]) -> None:
    """Both give the same JSON, or the figures mean nothing."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as http:
        for kind in KINDS:
            found = [await ask(http, base, kind) for base in bases.values()]
            (one, first), (two, second) = found
            assert one == two, found
            assert one < 300, found
            assert orjson.loads(first) == orjson.loads(second), found


async def start(role: str, address: str, more: list[str]) -> tuple[Any, int]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.gateway_overhead", "--role", role),
        *("--address", address, *more),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


async def measure(calls: int, at_once: int) -> dict[tuple[str, str], list[float]]:
    rates: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="jg") as folder:
        address = f"unix:{Path(folder)}/b.sock"
        started = [await start(role, address, []) for role in ROLES]
        servers = dict(zip(("ours", "plain"), started[1:], strict=True))
        bases = {name: f"http://127.0.0.1:{port}" for name, (_, port) in servers.items()}
        try:
            await compare(bases)
            for round_ in range(ROUNDS + 1):  # the first one warms up
                for kind in KINDS:
                    for name, (process, _) in servers.items():
                        before = cpu_seconds(process.pid)
                        await load(bases[name], kind, calls, at_once)
                        if round_:
                            used = cpu_seconds(process.pid) - before
                            rates.setdefault((kind, name), []).append(calls / used)
        finally:
            for process, _ in started:
                process.terminate()
                await process.wait()
    return rates


def report(rates: dict[tuple[str, str], list[float]]) -> None:
    for kind in KINDS:
        mine, other = rates[kind, "ours"], rates[kind, "plain"]
        ratios = [one / two for one, two in zip(mine, other, strict=True)]
        print(
            f"{kind.upper():4} gateway {statistics.median(mine):,.0f}, "
            f"plain {statistics.median(other):,.0f} requests per server CPU second; "
            f"ratio median {statistics.median(ratios):.2f}, "
            f"range {min(ratios):.2f}-{max(ratios):.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--role", choices=list(ROLES))
    parser.add_argument("--address", default="")
    parser.add_argument("--calls", type=int, default=3200)
    parser.add_argument("--at-once", type=int, default=32)
    options, _ = parser.parse_known_args()  # the rest is for the other parts of `make bench`
    if options.role:
        uvloop.run(ROLES[options.role](options.address))
        return
    report(uvloop.run(measure(options.calls, options.at_once)))


if __name__ == "__main__":
    main()
