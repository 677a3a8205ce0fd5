"""What a lying node may send: cleaned on the way in, or refused; never a row, never a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.common.v1 import resources_pb2
from junglegrid.nodes.v1 import lease_pb2
from junglegrid.nodes.v1 import node_session_service_pb2 as pb

from libs.errors import InvalidRequest, PermissionDenied, Unauthenticated, Unimplemented
from libs.rpc import Principal
from libs.rpc.context import acting
from services.nodes import convert
from services.nodes.domain import LeaseState, Phase, Report
from services.nodes.rpc import MetricsIngestService, NodeSessionService, NodeTunnelService
from services.nodes.session import PHASES_MAX
from tests.unit.nodes.grid import Grid

BAD_TIMES = [
    Timestamp(seconds=-62135596801),
    Timestamp(seconds=2**62),
    Timestamp(seconds=-1, nanos=999_999_999),
    Timestamp(seconds=1, nanos=-5),
]


def exit_of(**fields: Any) -> lease_pb2.ProcessExit:
    return lease_pb2.ProcessExit(**fields)


def report(**fields: Any) -> pb.SyncRequest:
    return pb.SyncRequest(seq=1, leases=[pb.LeaseReport(**fields)])


@pytest.mark.parametrize("stamp", BAD_TIMES, ids=str)
def test_times_that_no_calendar_has_are_dropped(stamp: Timestamp) -> None:
    phase = lease_pb2.PhaseReport(phase="running", node_time=stamp)
    found = convert.node_report(
        report(
            lease_id="l",
            state=lease_pb2.LEASE_STATE_EXITED,
            phases=[phase],
            exit=exit_of(started_node_time=stamp, finished_node_time=stamp),
        ),
        10,
    ).leases[0]
    assert found.exit is not None
    for time in (found.phases[0].node_time, found.exit.started_node_time):
        assert time is None or time.year >= 1970


def test_numbers_are_clamped() -> None:
    closing = convert.closing(
        pb.CompleteRequest(
            outcome=lease_pb2.LEASE_OUTCOME_EXITED,
            exit=exit_of(code=-7, signal=100_000),
            artifacts=-1,
            artifact_bytes=-(2**63),
            missing_artifacts=["x" * 10_000] * 1_000,
        )
    )
    assert closing.exit is not None
    assert (closing.exit.code, closing.exit.signal) == (255, 255)
    assert (closing.artifacts, closing.artifact_bytes) == (0, 0)
    assert len(closing.missing_artifacts) == 100
    assert max(map(len, closing.missing_artifacts)) == 512


def test_words_are_cut_and_cleaned() -> None:
    inventory = convert.inventory(
        lease_pb2.NodeInventory(
            gpus=[resources_pb2.Gpu(index=-3, name="\x1b]52;c;x\x07" + "A" * 1000, memory_bytes=-1)]
            * 100,
            cpu_millis=-5,
            runtimes=["sandbox", "evil", "docker"],
            daemon_version="1\n2",
        )
    )
    assert len(inventory.gpus) == 64
    gpu = inventory.gpus[0]
    assert gpu.name.isprintable() and len(gpu.name) <= 128
    assert (gpu.index, gpu.memory_bytes, inventory.cpu_millis) == (0, 0, 0)
    assert inventory.runtimes == ("sandbox", "docker")
    assert inventory.daemon_version == "1 2"


def test_one_simulated_gpu_makes_the_node_so() -> None:
    gpus = [resources_pb2.Gpu(index=0), resources_pb2.Gpu(index=1, simulated=True)]
    assert convert.inventory(lease_pb2.NodeInventory(gpus=gpus)).simulated


def test_made_up_steps_and_states_are_dropped() -> None:
    phases = [lease_pb2.PhaseReport(phase="finished", message="free money")] * 5
    phases += [lease_pb2.PhaseReport(phase="notice", message="\u202eabc", level="fatal")] * 100
    made_up = report(lease_id="l", state=lease_pb2.LEASE_STATE_CLOSED)
    assert convert.node_report(made_up, 10).leases == ()
    found = convert.node_report(
        report(lease_id="l", state=lease_pb2.LEASE_STATE_RUNNING, phases=phases), 10
    ).leases[0]
    assert len(found.phases) == 50
    assert {(step.phase, step.level, step.message) for step in found.phases} == {
        ("notice", "info", "abc")
    }


@pytest.mark.parametrize(
    "outcome",
    [
        lease_pb2.LEASE_OUTCOME_UNSPECIFIED,
        lease_pb2.LEASE_OUTCOME_NODE_LOST,
        99,
    ],
)
def test_outcomes_that_are_not_a_nodes_to_give(outcome: Any) -> None:
    with pytest.raises(InvalidRequest):
        convert.closing(pb.CompleteRequest(outcome=outcome))


def test_a_report_of_too_many_leases_is_refused() -> None:
    leases = [pb.LeaseReport(lease_id="l", state=lease_pb2.LEASE_STATE_RUNNING)] * 11
    with pytest.raises(InvalidRequest):
        convert.node_report(pb.SyncRequest(leases=leases), 10)


def test_a_life_of_a_token_is_bounded_by_the_service() -> None:
    from junglegrid.nodes.v1 import node_internal_service_pb2 as internal

    request = internal.CreateEnrolmentTokenRequest(life=Duration(seconds=-5))
    assert convert.token_draft(request).life_seconds == -5


async def _requests(*requests: pb.SyncRequest) -> AsyncIterator[pb.SyncRequest]:
    for request in requests:
        yield request


async def test_a_stream_without_hello_or_without_a_caller_opens_nothing(grid: Grid) -> None:
    enrolled = await grid.node()
    servicer = NodeSessionService(grid.service, grid.deps.config)
    with pytest.raises(Unauthenticated):
        await anext(servicer.Sync(_requests(), None))
    user = Principal(kind="user", subject="key_1", workspace_id="ws_1")
    with acting(user), pytest.raises(PermissionDenied):
        await anext(servicer.Sync(_requests(), None))
    with acting(Principal(kind="node", subject=enrolled.node_id)):
        for first in ([], [pb.SyncRequest(seq=1)]):
            with pytest.raises(InvalidRequest):
                await anext(servicer.Sync(_requests(*first), None))
    assert grid.deps.sessions.all == {}


async def test_a_stream_of_lies_changes_no_row(grid: Grid) -> None:
    session, other = await grid.online(), await grid.online()
    lease = await grid.place(other.node_id)
    lies = [
        pb.LeaseReport(lease_id=name, state=state, exit=exit_of(code=0))
        for name in ("", "lease_" + "0" * 26, lease.lease_id, "x" * 100_000)
        for state in (
            lease_pb2.LEASE_STATE_RUNNING,
            lease_pb2.LEASE_STATE_EXITED,
            lease_pb2.LEASE_STATE_STARTING,
        )
    ]
    told = len(grid.told)
    request = pb.SyncRequest(seq=-(2**63), leases=lies)
    await grid.service.streams.record(session, convert.node_report(request, 1000))
    assert len(grid.told) == told
    assert (await grid.lease(lease.lease_id)).state is LeaseState.ASSIGNED


def test_what_is_only_declared_says_so() -> None:
    with pytest.raises(Unimplemented):
        MetricsIngestService().AppendMetrics(None, None)
    with pytest.raises(Unimplemented):
        NodeTunnelService().Tunnel(None, None)


async def test_a_flood_of_steps_ends_at_the_session(grid: Grid) -> None:
    session = await grid.online()
    lease = await grid.place(session.node_id)
    await grid.claim(session, lease)
    session.wanted[lease.lease_id] = await grid.lease(lease.lease_id)
    steps = tuple(Phase("notice", f"notice {number}", "info") for number in range(50))
    for _ in range(30):
        await grid.report(session, Report(lease.lease_id, LeaseState.STARTING, steps))
    told = [len(fact.phases) for fact in grid.facts("progressed")]
    assert sum(told) == PHASES_MAX and len(told) == PHASES_MAX // 50
    await grid.report(session, Report(lease.lease_id, LeaseState.RUNNING, steps))
    assert (await grid.lease(lease.lease_id)).state is LeaseState.RUNNING
