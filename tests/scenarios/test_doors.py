"""Who may knock where: node credentials on internal calls, and reads while the bus stands still."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool, message_factory

from tests.support.grid import grid_here
from tests.support.stack import stack

SERVICES = (
    "junglegrid.jobs.v1.JobService", "junglegrid.jobs.v1.JobInternalService",
    "junglegrid.scheduling.v1.SchedulingInternalService",
    "junglegrid.nodes.v1.NodeInternalService", "junglegrid.logs.v1.LogService",
    "junglegrid.logs.v1.LogInternalService", "junglegrid.artifacts.v1.ArtifactService",
    "junglegrid.artifacts.v1.InputService", "junglegrid.artifacts.v1.ArtifactInternalService",
    "junglegrid.billing.v1.BillingService", "junglegrid.billing.v1.BillingInternalService",
    "junglegrid.identity.v1.IdentityInternalService",
    "junglegrid.webhooks.v1.WebhookInternalService",
)  # fmt: skip
PACKAGES = (
    "jobs.v1.job_service", "jobs.v1.job_internal_service", "scheduling.v1.scheduling_service",
    "nodes.v1.node_internal_service", "logs.v1.log_service", "logs.v1.log_internal_service",
    "artifacts.v1.artifact_service", "artifacts.v1.input_service",
    "artifacts.v1.artifact_internal_service", "billing.v1.billing_service",
    "billing.v1.billing_internal_service", "identity.v1.identity_internal_service",
    "webhooks.v1.webhook_internal_service",
)  # fmt: skip


async def refusal(channel: grpc.aio.Channel, service: str, method: str, bearer: str) -> str:
    """The status with which a call that shows `bearer` is refused."""
    pool = descriptor_pool.Default()
    found = pool.FindServiceByName(service).methods_by_name[method]
    request = message_factory.GetMessageClass(found.input_type)()
    target = f"/{service}/{method}"
    encode = type(request).SerializeToString
    decode = message_factory.GetMessageClass(found.output_type).FromString
    metadata = (("authorization", f"Bearer {bearer}"),)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        if found.server_streaming:
            stream = channel.unary_stream(target, encode, decode)
            await stream(request, metadata=metadata, timeout=10).read()
        else:
            unary = channel.unary_unary(target, encode, decode)
            await unary(request, metadata=metadata, timeout=10)
    return str(error.value.code().name)


async def test_a_node_credential_is_refused_by_every_internal_call() -> None:
    async with stack(runtime="simulated") as whole:
        identity = json.loads((whole.nodes[0].home / "identity.json").read_text())
        credential = identity["credential"]
        pool = descriptor_pool.Default()
        for package in PACKAGES:  # importing them puts them in the pool
            importlib.import_module(f"junglegrid.{package}_pb2")
        async with grpc.aio.insecure_channel(f"unix:{whole.grid.home}/grid.sock") as inside:
            for service in SERVICES:
                for method in pool.FindServiceByName(service).methods_by_name:
                    code = await refusal(inside, service, method, credential)
                    assert code == "PERMISSION_DENIED", f"{service}/{method}: {code}"
        async with grpc.aio.insecure_channel(whole.grid.node_address) as outside:
            for service in SERVICES:
                method = next(iter(pool.FindServiceByName(service).methods_by_name))
                code = await refusal(outside, service, method, credential)
                assert code == "PERMISSION_DENIED", f"{service}/{method}: {code}"


async def test_every_read_answers_at_once_with_the_bus_paused() -> None:
    from deploy.up import bootstrap
    from deploy.up.api import Api
    from tests.support.stack import draft

    async with grid_here() as grid:
        channel = bootstrap.open_internal(grid.home)
        found = await bootstrap.credentials(channel, grid.home, grid.url)
        assert grid.shared is not None
        grid.shared.bus.pause()  # type: ignore[attr-defined]
        async with Api(grid.url, found.api_key) as api:
            job = await api.call("POST", "/v1/jobs", draft())
            job_id = job["job_id"]
            got = await api.call("GET", f"/v1/jobs/{job_id}")
            assert got["status"] == "queued"
            listing = await api.call("GET", "/v1/jobs")
            assert [item["job_id"] for item in listing["jobs"]] == [job_id]
            events = await api.call("GET", f"/v1/jobs/{job_id}/events")
            types = [item["type"] for item in events["items"]]
            assert types == ["job.submitted", "job.queued", "job.waiting_for_capacity"]
            logs = await api.call("GET", f"/v1/jobs/{job_id}/logs")
            assert (logs["status"], logs["items"]) == ("queued", [])
            artifacts = await api.call("GET", f"/v1/jobs/{job_id}/artifacts")
            assert artifacts == {"artifacts": []}
            stream = api.events(f"/v1/jobs/{job_id}/logs/live")
            name, data = await anext(stream)
            assert (name, data["status"]) == ("status", "queued")
        grid.shared.bus.resume()  # type: ignore[attr-defined]
        await channel.close()


async def test_an_idle_grid_hardly_wakes_up() -> None:
    """Wake-ups are voluntary context switches, as the kernel counts them by thread.

    Ours are those of the event loop: a beat of the node, a beat of the revocation stream, slow
    sweeps. The rest belongs to gRPC's own pollers, which hand work around among themselves; they
    are bounded loosely, so that a change of ours that wakes them shows.
    """
    async with stack(runtime="simulated") as whole:
        await whole.finished(await whole.submit(environment={"JUNGLEGRID_SIMULATE": "exit=0"}))
        await asyncio.sleep(2.0)
        pids = {"grid": whole.grid.process.pid, "node": whole.nodes[0].process.pid}
        before = {name: switches(pid) for name, pid in pids.items()}
        await asyncio.sleep(5.0)
        after = {name: switches(pid) for name, pid in pids.items()}
    rates = {
        name: ((after[name][0] - before[name][0]) / 5, (after[name][1] - before[name][1]) / 5)
        for name in pids
    }
    print(f"wake-ups a second (event loop, whole process): {rates}")
    assert rates["grid"][0] < 8, rates
    assert rates["node"][0] < 4, rates
    assert max(total for _, total in rates.values()) < 80, rates


def switches(pid: int) -> tuple[int, int]:
    """Voluntary context switches of the main thread, and of all threads of a process."""
    counts = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        counts[int(task.name)] = int(status.partition("voluntary_ctxt_switches:")[2].split()[0])
    return counts[pid], sum(counts.values())
