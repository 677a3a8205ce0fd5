"""The daemon against the real nodes service: whole lives of leases, with the simulated runtime."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from junglegrid.jobs.v1 import launch_pb2

from libs.clock import SystemClock
from libs.errors import Unavailable
from services.node_daemon import identity
from services.node_daemon.domain import Stage
from services.node_daemon.module import build
from services.node_daemon.runtime.simulated import SimulatedAttempt, SimulatedRuntime
from services.node_daemon.session import NodeRevoked
from services.nodes.domain import LeaseState, NodeState, Outcome
from services.nodes.errors import LaunchRefused
from tests.unit.node_daemon.small_grid import SmallGrid, small_grid


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[SmallGrid]:
    async with small_grid(tmp_path) as found:
        yield found


async def test_a_short_job_is_one_claim_and_one_complete(grid: SmallGrid) -> None:
    grid.jobs.script = "stdout=hello;stderr=oops;artifact=a.txt:result;exit=3"
    async with grid.daemon():
        lease = await grid.place()
        closed = await grid.closed(lease)
    assert (closed.outcome, closed.exit and closed.exit.code) == (Outcome.EXITED, 3)
    assert grid.kinds(lease) == [
        "LeaseOpened", "LeaseClaimed", "LeaseStarted", "LeaseExited", "LeaseClosed",
    ]  # fmt: skip
    assert grid.logs.text(lease.lease_id) == ["hello"]
    assert grid.logs.text(lease.lease_id, 2) == ["oops"]
    fact = grid.facts(lease)[-1]
    assert (fact.artifacts, fact.artifact_bytes, fact.log_gap) == (1, 6, False)
    assert fact.runtime == "simulated"
    assert grid.store.files[grid.store.ready["a.txt"]] == b"result"
    phases = [step.phase for step in grid.facts(lease)[2].phases]
    assert phases == ["runtime_preparation", "notice", "container_starting", "running"]


async def test_a_longer_job_is_seen_running_and_exited(grid: SmallGrid) -> None:
    grid.jobs.script = "sleep=0.4;exit=0"
    async with grid.daemon():
        lease = await grid.place()
        running = await grid.reaches(lease, LeaseState.RUNNING)
        assert running.started_time is not None
        await grid.closed(lease)
    assert grid.kinds(lease).count("LeaseStarted") == 1


async def test_many_jobs_at_once(grid: SmallGrid) -> None:
    grid.jobs.script = "lines=50;artifact=x.bin:1234;sleep=0.01"
    async with grid.daemon(slots=16):
        leases = [await grid.place() for _ in range(40)]
        for lease in leases:
            closed = await grid.closed(lease)
            assert closed.outcome is Outcome.EXITED
    assert all(len(grid.logs.text(lease.lease_id)) == 50 for lease in leases)
    assert grid.logs.repeats == 0


async def test_a_long_log_arrives_whole_over_broken_streams(grid: SmallGrid) -> None:
    grid.jobs.script = "lines=40000"
    grid.logs.breaks = 5
    async with grid.daemon():
        lease = await grid.place()
        closed = await grid.closed(lease, 30)
    assert grid.logs.text(lease.lease_id) == [f"line {number}" for number in range(1, 40001)]
    assert closed.outcome is Outcome.EXITED and not grid.facts(lease)[-1].log_gap


async def test_a_log_store_that_does_not_answer_costs_a_gap_and_no_more(grid: SmallGrid) -> None:
    grid.jobs.script = "lines=10"
    grid.logs.silent = True
    async with grid.daemon():
        lease = await grid.place()
        exited = await grid.reaches(lease, LeaseState.EXITED)
        closed = await grid.closed(lease)
    assert exited.exited_time == closed.exited_time
    assert grid.facts(lease)[-1].log_gap


async def test_a_sealed_log_does_not_hold_the_lease_back(grid: SmallGrid) -> None:
    grid.jobs.script = "lines=10"
    grid.logs.refuse = "SEALED"
    async with grid.daemon():
        lease = await grid.place()
        await grid.closed(lease, 0.9)
    assert grid.facts(lease)[-1].log_gap


async def test_uploads_are_tried_again(grid: SmallGrid) -> None:
    grid.jobs.script = "artifact=a:1;artifact=b:22"
    grid.jobs.expected = ("/workspace/artifacts/a", "artifacts/c.bin")
    grid.store.failures = 3
    async with grid.daemon():
        lease = await grid.place()
        await grid.closed(lease)
    fact = grid.facts(lease)[-1]
    assert (fact.artifacts, fact.artifact_bytes) == (2, 3)
    assert list(fact.missing_artifacts) == ["artifacts/c.bin"]


async def test_inputs_are_there_before_the_start(grid: SmallGrid) -> None:
    data = b"print('hi')" * 100_000
    grid.store.downloads["s"] = data
    grid.jobs.script = "sleep=0.5"
    grid.jobs.inputs = [_mount(grid, "/workspace/scripts/deep/run.py", data)]
    async with grid.daemon() as daemon:
        lease = await grid.place()
        await grid.reaches(lease, LeaseState.RUNNING)
        home = daemon._config.home / "simulated" / lease.lease_id / "workspace"
        assert (home / "scripts/deep/run.py").read_bytes() == data
        await grid.closed(lease)


@pytest.mark.parametrize("broken", ["digest", "size", "gone", "path"])
async def test_a_bad_input_fails_the_start(grid: SmallGrid, broken: str) -> None:
    data = b"x" * 1000
    mount = _mount(grid, "/workspace/inputs/x", data)
    grid.store.downloads["s"] = b"y" * 1000 if broken == "digest" else data
    if broken == "size":
        mount.size_bytes = 999
    if broken == "gone":
        grid.store.downloads.clear()
    if broken == "path":
        mount.mount_path = "/workspace/inputs/../../../etc/x"
    grid.jobs.inputs = [mount]
    async with grid.daemon():
        lease = await grid.place()
        closed = await grid.closed(lease)
    # A path that cannot be meant is the same on every node; the rest may go well on another.
    wanted = Outcome.LAUNCH_INVALID if broken == "path" else Outcome.RUNTIME_FAILED
    assert closed.outcome is wanted and closed.started_time is None
    assert grid.facts(lease)[-1].message


def _mount(grid: SmallGrid, path: str, data: bytes) -> launch_pb2.InputMount:
    return launch_pb2.InputMount(
        input_id="inp_1",
        mount_path=path,
        url=f"{grid.store.url}/get?name=s",
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


async def test_a_stop_ends_the_process_and_keeps_its_log(grid: SmallGrid) -> None:
    grid.jobs.script = "stdout=before;hang"
    async with grid.daemon():
        lease = await grid.place()
        await grid.reaches(lease, LeaseState.RUNNING)
        await grid.stop_job(lease.job_id)
        closed = await grid.closed(lease)
    assert closed.outcome is Outcome.CANCELLED and closed.exit and closed.exit.stopped
    assert grid.logs.text(lease.lease_id) == ["before"]


async def test_a_refused_launch_leaves_nothing(grid: SmallGrid) -> None:
    grid.jobs.error = LaunchRefused
    async with grid.daemon() as daemon:
        lease = await grid.place()
        assert (await grid.closed(lease)).outcome is Outcome.CANCELLED
        await grid.until(lambda: not daemon.session.leases.ids if daemon.session else False)


async def test_an_outage_of_jobs_is_waited_out(grid: SmallGrid) -> None:
    grid.jobs.error = lambda: Unavailable("down")
    async with grid.daemon():
        lease = await grid.place()
        await grid.until(lambda: grid.jobs.asked >= 3)
        grid.jobs.error = None
        assert (await grid.closed(lease)).outcome is Outcome.EXITED


async def test_the_grid_goes_away_and_comes_back_during_a_job(grid: SmallGrid) -> None:
    grid.jobs.script = "stdout=one;sleep=0.6;stdout=two"
    async with grid.daemon() as daemon:
        lease = await grid.place()
        await grid.reaches(lease, LeaseState.RUNNING)
        before = daemon.session.epoch if daemon.session else 0
        await grid.restart_listener()
        closed = await grid.closed(lease)
        assert daemon.session and daemon.session.epoch > before
    assert closed.outcome is Outcome.EXITED
    assert grid.logs.text(lease.lease_id) == ["one", "two"]
    assert grid.kinds(lease).count("LeaseStarted") == 1


async def test_a_daemon_that_restarts_tells_what_it_lost(grid: SmallGrid) -> None:
    grid.jobs.script = "stdout=x;hang"
    async with grid.daemon():
        lease = await grid.place()
        await grid.reaches(lease, LeaseState.RUNNING)
    async with grid.daemon():
        closed = await grid.closed(lease)
    assert closed.outcome is Outcome.RUNTIME_LOST
    assert grid.jobs.asked == 1


async def test_a_claim_whose_daemon_died_is_abandoned(grid: SmallGrid) -> None:
    async with grid.daemon():
        node_id = await grid.node_id()
    lease = await grid.place(node_id)
    epoch = (await grid.service.operations.list_nodes("", "", 1))[0][0][0].session_epoch
    await grid.service.claims.start_claim(node_id, epoch, lease.lease_id, 1)
    async with grid.daemon():
        closed = await grid.closed(lease)
    assert closed.outcome is Outcome.ABANDONED
    assert "LeaseStarted" not in grid.kinds(lease)


async def test_a_node_cut_off_for_too_long_kills_and_comes_back_clean(grid: SmallGrid) -> None:
    grid.jobs.script = "hang"
    async with grid.daemon() as daemon:
        lease = await grid.place()
        await grid.reaches(lease, LeaseState.RUNNING)
        await grid.server.stop()
        held = next(iter(daemon.session.leases)) if daemon.session else None
        assert held is not None
        await grid.until(lambda: held.stage is Stage.ENDING)  # by itself, at its own deadline
        assert (await grid.lease(lease.lease_id)).state is LeaseState.RUNNING
        closed = await grid.closed(lease)
        assert closed.outcome is Outcome.NODE_LOST
        grid.server = grid.listener()
        await grid.server.start()
        await grid.until(lambda: not daemon.session.leases.ids if daemon.session else False)
        await _becomes(grid, NodeState.ONLINE)
        grid.jobs.script = ""
        again = await grid.place()
        assert (await grid.closed(again)).outcome is Outcome.EXITED


async def test_a_revoked_node_stops_for_good(grid: SmallGrid) -> None:
    grid.jobs.script = "hang"
    async with grid.daemon() as daemon:
        lease = await grid.place()
        await grid.reaches(lease, LeaseState.RUNNING)
        watching = asyncio.ensure_future(daemon.watch())
        await grid.service.operations.revoke_node(await grid.node_id())
        with pytest.raises(NodeRevoked):
            await asyncio.wait_for(watching, 5)
    again = build(await grid.config(), SystemClock())
    await again.start()
    with pytest.raises(NodeRevoked):
        await asyncio.wait_for(again.watch(), 5)
    await again.stop()


async def test_two_daemons_with_one_identity_the_newest_wins(
    grid: SmallGrid, tmp_path: Path
) -> None:
    grid.jobs.script = "hang"
    async with grid.daemon() as first:
        lease = await grid.place()
        await grid.reaches(lease, LeaseState.RUNNING)
        (tmp_path / "clone").mkdir()
        found = identity.load(tmp_path / "node")
        assert found is not None
        identity.keep(tmp_path / "clone", found)
        clone = build(await grid.config("clone"), SystemClock())
        await clone.start()
        await grid.closed(lease)
        await grid.until(lambda: not first.session.leases.ids if first.session else False)
        await clone.stop()


async def test_a_full_disk_drains_the_node(
    grid: SmallGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with grid.daemon() as daemon:
        assert daemon.session is not None
        monkeypatch.setattr(daemon.session, "_look", lambda: "the node's disk is 95 % full")
        await _becomes(grid, NodeState.DRAINING)
        lease = await grid.place()
        assert (await grid.closed(lease)).outcome is Outcome.NODE_REFUSED
        monkeypatch.setattr(daemon.session, "_look", lambda: "")
        await _becomes(grid, NodeState.ONLINE)


async def _state(grid: SmallGrid) -> NodeState:
    page, _ = await grid.service.operations.list_nodes("", "", 1)
    return page[0][0].state


async def _becomes(grid: SmallGrid, state: NodeState) -> None:
    async with asyncio.timeout(5):
        while await _state(grid) is not state:  # noqa: ASYNC110 - looked at from outside
            await asyncio.sleep(0.01)


async def test_the_identity_is_private(grid: SmallGrid, tmp_path: Path) -> None:
    async with grid.daemon():
        path = tmp_path / "node" / identity.FILE
        assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(identity.NoIdentity):
        identity.load(tmp_path / "node")


async def test_heartbeats_write_nothing_on_the_bus(grid: SmallGrid) -> None:
    async with grid.daemon():
        await grid.until(lambda: bool(grid.told))
        before = len(grid.told)
        await asyncio.sleep(0.5)
        assert len(grid.told) == before


async def test_a_start_that_fails_in_an_unexpected_way_frees_the_lease_and_the_slot(
    grid: SmallGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(*_: object) -> None:
        raise RuntimeError("the engine has hung up")

    monkeypatch.setattr(SimulatedRuntime, "start", start)
    async with grid.daemon() as daemon:
        lease = await grid.place()
        closed = await grid.closed(lease, 3)
        assert not (daemon._config.home / "simulated" / lease.lease_id).exists()
    assert closed.outcome is Outcome.RUNTIME_FAILED


async def test_artifacts_that_cannot_be_read_do_not_hold_the_lease(
    grid: SmallGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def artifacts(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(SimulatedAttempt, "artifacts", artifacts)
    grid.jobs.script = "stdout=hello;exit=0"
    async with grid.daemon():
        lease = await grid.place()
        closed = await grid.closed(lease, 3)
    assert (closed.outcome, closed.exit and closed.exit.code) == (Outcome.EXITED, 0)
    assert "artifacts were not kept" in grid.facts(lease)[-1].message
