"""Random facts in random order and company, with undone batches and restarts: what must hold."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from libs import failpoints
from tests.unit.scheduling.world import World, closed, finished, node, queued, stop_requested

T = TypeVar("T")
JOBS = [f"job_{number}" for number in range(5)]
JOB_FACTS = st.one_of(
    st.builds(
        queued,
        st.integers(1, 3),
        gpus=st.integers(0, 2),
        cpu=st.sampled_from([500, 2_000]),
        tasks=st.sampled_from([1, 1, 1, 2]),
    ),
    st.builds(stop_requested, st.integers(1, 3)),
    st.builds(finished),
)
BATCHES = st.lists(st.tuples(JOB_FACTS, st.sampled_from(JOBS)), min_size=1, max_size=6)


class FactsMachine(RuleBasedStateMachine):
    """Also keeps which jobs are over, as the facts said."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.over: set[str] = set()
        self.placed_when_over: dict[str, int] = {}
        self.world = self.run(self._world())

    async def _world(self) -> World:
        world = World(self.folder, placements_per_commit_max=2)
        await world.database.start()
        await world.service.load()
        return world

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def placements_of(self, job_id: str) -> int:
        return sum(each.meta.aggregate_id == job_id for each in self.world.told)

    @rule(batch=BATCHES)
    def hear(self, batch: list[tuple[Message, str]]) -> None:
        self.run(self.world.hear_all(batch))
        for fact, job_id in batch:
            if fact.DESCRIPTOR.name == "JobFinished" and job_id not in self.over:
                self.over.add(job_id)
                self.placed_when_over[job_id] = self.placements_of(job_id)

    @rule(batch=BATCHES)
    def hear_and_undo(self, batch: list[tuple[Message, str]]) -> None:
        failpoints.arm("scheduling.commit.in_transaction=error")
        told = len(self.world.told)
        try:
            self.run(self.world.hear_all([*batch, (queued(9), "job_undone")]))
        except failpoints.FailpointError:
            assert len(self.world.told) == told
        else:
            self.over |= {job_id for fact, job_id in batch if fact.DESCRIPTOR.name == "JobFinished"}
            for job_id in self.over:
                self.placed_when_over.setdefault(job_id, self.placements_of(job_id))
        finally:
            failpoints.disarm()

    @rule(name=st.sampled_from(["node_1", "node_2"]), gpus=st.integers(0, 3), open=st.booleans())
    def node(self, name: str, gpus: int, open: bool) -> None:
        fact = node(gpus, state="ONLINE" if open else "OFFLINE")
        self.run(self.world.hear(fact, name))

    @rule(which=st.integers(0, 30), times=st.integers(1, 2))
    def close(self, which: int, times: int) -> None:
        if self.world.placed:
            placed = self.world.placed[which % len(self.world.placed)]
            for task in range(len(placed.allocations)):
                for _ in range(times):
                    self.run(self.world.hear(closed(placed, task)))

    @rule()
    def loop_plans(self) -> None:
        self.run(self.world.plan())

    @rule()
    def restart(self) -> None:
        self.world.build()
        self.run(self.world.service.load())

    @rule(seconds=st.sampled_from([1, 200]))
    def sweep(self, seconds: int) -> None:
        self.world.clock.advance(seconds)
        self.run(self.world.service.sweep())

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "world"):
            return
        self.run(self.world.check_rows())
        attempts = [(each.meta.aggregate_id, each.placed.attempt) for each in self.world.told]
        assert len(attempts) == len(set(attempts)), "an attempt is placed once"
        for job_id in self.over:
            assert self.placements_of(job_id) == self.placed_when_over[job_id]
        if self.world.in_step:
            self.run(self.world.check_memory())

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run(self.world.database.stop())
            self.loop.close()
            shutil.rmtree(self.folder)


TestFactsMachine = FactsMachine.TestCase
TestFactsMachine.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
