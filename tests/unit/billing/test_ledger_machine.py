"""Random calls and facts, twice and in any order, against the reference model (A12, small)."""

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

from services.billing.errors import HoldInUse, InsufficientFunds, JobIsFinished, ReplayDiffers
from tests.unit.billing.ledger_model import Job, Model
from tests.unit.billing.world import WORKSPACE, World, claimed, closed, finished, queued

T = TypeVar("T")
JOBS = st.sampled_from(["job_a", "job_b", "job_c"])
ATTEMPTS = st.integers(1, 3)
OURS = ("node_lost", "abandoned", "runtime_failed", "runtime_lost", "node_refused")


class LedgerMachine(RuleBasedStateMachine):
    """Every rule may repeat itself at random, which is how duplicates come about."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.world = self.run(self._world())
        self.model = Model()

    async def _world(self) -> World:
        world = World(self.folder)
        await world.database.start()
        return world

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def hear(self, fact: Message, job_id: str, times: int) -> None:
        for _ in range(times):
            self.run(self.world.hear(fact, job_id))

    def job(self, job_id: str) -> Job:
        return self.model.jobs.setdefault(job_id, Job())

    @rule(reference=st.sampled_from("abcdef"), amount=st.sampled_from([5_000, 20_000]))
    def credit(self, reference: str, amount: int) -> None:
        amount += ord(reference)  # the same reference with two amounts is refused
        new = reference not in self.model.references
        try:
            self.run(self.world.credit(amount, reference))
        except ReplayDiffers:
            assert not new
            return
        if new:
            self.model.references.add(reference)
            self.model.credited += amount

    @rule(
        job_id=JOBS,
        attempt=ATTEMPTS,
        period=st.integers(0, 1),
        amount=st.integers(0, 9).map(lambda n: n * 1_000),
    )
    def reserve(self, job_id: str, attempt: int, period: int, amount: int) -> None:
        job, key = self.job(job_id), (attempt, period)
        available, _, _ = self.model.totals()
        try:
            found = self.run(
                self.world.reserve(amount, job_id=job_id, attempt=attempt, period=period)
            )
        except ReplayDiffers:
            assert job.holds[key][0] != amount
        except JobIsFinished:
            assert key not in job.holds and job.awaited is not None
        except InsufficientFunds:
            assert key not in job.holds and amount > available
        else:
            assert key in job.holds or (amount <= available and job.awaited is None)
            job.holds.setdefault(key, (amount, "held"))
            job.known = True
            assert found.status.value == job.holds[key][1]

    @rule(job_id=JOBS)
    def release(self, job_id: str) -> None:
        job = self.job(job_id)
        try:
            self.run(self.world.service.release(WORKSPACE, job_id))
        except HoldInUse:
            assert job.claimed > job.closed
        else:
            assert job.claimed <= job.closed
            if job.held() > 0:
                job.resolve(0)

    @rule(job_id=JOBS, attempt=ATTEMPTS, times=st.integers(1, 2))
    def queue(self, job_id: str, attempt: int, times: int) -> None:
        self.hear(queued(attempt), job_id, times)
        job = self.job(job_id)
        job.known = job.queued = True
        job.judge()

    @rule(job_id=JOBS, attempt=ATTEMPTS, times=st.integers(1, 2))
    def claim(self, job_id: str, attempt: int, times: int) -> None:
        fact = claimed(self.world.clock.now(), attempt)
        fact.lease.job_id = job_id  # type: ignore[attr-defined]
        self.hear(fact, job_id, times)
        job = self.job(job_id)
        if attempt > job.closed and attempt >= job.claimed:
            job.known = True
            job.claimed = attempt

    @rule(
        job_id=JOBS,
        attempt=ATTEMPTS,
        seconds=st.one_of(st.none(), st.integers(-5, 20)),
        outcome=st.sampled_from(["exited", "cancelled", *OURS]),
        times=st.integers(1, 2),
    )
    def close(
        self, job_id: str, attempt: int, seconds: int | None, outcome: str, times: int
    ) -> None:
        fact = closed(self.world.clock.now(), seconds, outcome, attempt=attempt)
        fact.lease.job_id = job_id  # type: ignore[attr-defined]
        self.hear(fact, job_id, times)
        job = self.job(job_id)
        if attempt not in job.heard:
            job.known = True
            job.heard.add(attempt)
            job.unjudged[attempt] = None if outcome in OURS else max(seconds or 0, 0) * 1_000
            job.judge()

    @rule(
        job_id=JOBS,
        attempt=st.integers(0, 3),
        status=st.sampled_from(["completed", "failed", "cancelled", "rejected"]),
        lease_open=st.booleans(),
        times=st.integers(1, 2),
    )
    def finish(self, job_id: str, attempt: int, status: str, lease_open: bool, times: int) -> None:
        self.hear(finished(status, attempt, lease_open=lease_open), job_id, times)
        job = self.job(job_id)
        if job.known and job.awaited is None:
            waits = lease_open or status in ("completed", "failed")
            job.awaited = attempt if waits else 0
        job.judge()

    @invariant()
    def same_as_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        found = self.run(self.world.balance())
        totals = (found.available_micros, found.reserved_micros, found.spent_micros)
        assert totals == self.model.totals()
        assert min(totals) >= 0
        self.run(self.world.check())

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run(self.world.database.stop())
            self.loop.close()
            shutil.rmtree(self.folder)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
