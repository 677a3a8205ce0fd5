"""The life of one lease on this node, from StartClaim to Complete, as one task.

    claim -> prepare -> inputs -> start -> wait -> log and artifacts -> Complete -> release

A later daemon enters at `wait` with an attempt that the runtime has kept. Whatever happens, the
lease ends here by one Complete, or by a kill when the grid has closed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from junglegrid.jobs.v1 import launch_pb2
from junglegrid.nodes.v1 import lease_pb2
from junglegrid.nodes.v1 import node_session_service_pb2 as pb

from libs import failpoints
from libs.errors import Code, GridError, Unavailable
from libs.telemetry import logger
from services.node_daemon import convert, domain, inputs, journal
from services.node_daemon.domain import Outcome, Stage, Want
from services.node_daemon.grid import insist
from services.node_daemon.logs_out import Feed
from services.node_daemon.runtime.port import (
    Attempt,
    Exit,
    ExitReason,
    Phase,
    Prepared,
)
from services.node_daemon.uploads import Sent
from services.node_daemon.world import World

T = TypeVar("T")
_log = logger("attempts")
BEFORE_CLAIM = failpoints.register(
    "node.claim.before", "a lease is assigned to this node, its start was not asked for"
)
AFTER_GRANT = failpoints.register(
    "node.claim.after_grant", "the start was granted, nothing was started"
)
AFTER_START = failpoints.register("node.start.after", "the process runs, the grid does not know it")
BEFORE_COMPLETE = failpoints.register(
    "node.complete.before", "log and artifacts are acknowledged, the lease is open"
)
_FINAL = frozenset({Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED})
# There will be another session; or a grid that stops has cut the call off.
_LATER = frozenset({Code.FAILED_PRECONDITION, Code.UNAUTHENTICATED, Code.CANCELLED})


class Revoked(Exception):
    """The grid does not want the lease to be started."""


class Unwanted(Exception):
    """A stop came before the process was started."""


class Lease:
    """One lease held here. `run` is its life; the rest is for the session's writer."""

    def __init__(self, want: Want, world: World, attempt: Attempt | None = None) -> None:
        self.want = want
        self.stage = Stage.CLAIMING if attempt is None else Stage.RUNNING
        self.stop_reason = ""
        self.asked_epoch = 0  # the session whose start claim was sent last
        self.phases: list[lease_pb2.PhaseReport] = []  # those the grid does not have
        self._told = 0
        self._world = world
        self._attempt = attempt
        self.killed = False
        self._grace_seconds = 0.0
        self._grant = b""
        self._granted = asyncio.Event()
        self._plan = journal.Plan()
        self._exit: Exit | None = None
        self._timer: asyncio.TimerHandle | None = None
        # What a stop cancels; not while the runtime takes a slot, which would be left behind.
        self._work: asyncio.Task[Any] | None = None
        self._taking_slot = False

    @property
    def held(self) -> domain.Held:
        """As the reactor sees it."""
        return domain.Held(self.want.lease_id, self.stage, bool(self.stop_reason) or self.killed)

    async def run(self) -> None:
        """Returns when the node has nothing of the lease any more. Raises Revoked."""
        try:
            if self._attempt is None:
                await self._begin()
            else:
                self._plan = self._world.journal.find(self.want.lease_id)
            if self._attempt is not None:
                await self._follow(self._attempt)
            self._world.journal.forget(self.want.lease_id)
        finally:
            self._quiet()
            self._world.logs.detach(self.want.lease_id)

    async def refuse(self, reason: str) -> None:
        """Gives it back unstarted."""
        await self._complete(Outcome.NODE_REFUSED, reason)

    @property
    def steps(self) -> int:
        """How many steps there were so far, told or not."""
        return self._told + len(self.phases)

    def told(self, steps: int) -> None:
        """The grid has the first `steps` of all. Two reports under way may hold the same ones."""
        fresh = max(steps - self._told, 0)
        del self.phases[:fresh]
        self._told += fresh

    def renew(self, deadline: float) -> None:
        """The lease holds until then."""
        if self._attempt is not None and self.stage is Stage.RUNNING:
            self._attempt.renew(deadline)

    def renew_grant(self, grant: bytes) -> None:
        """A fresh right to write."""
        self._grant = grant
        self._granted.set()
        self._world.logs.renew(self.want.lease_id, grant)

    def stop(self, reason: str, grace_seconds: float) -> None:
        """Ends the process, or the preparations for it; the rest goes its way."""
        self.stop_reason, self._grace_seconds = reason, grace_seconds
        if self._attempt is not None:
            self._attempt.stop(reason, grace_seconds)
        else:
            self._cancel_work()

    def kill(self, reason: str) -> None:
        """Ends the process and says nothing to the grid, which has closed the lease."""
        self.killed = True
        self.stop(reason, 0.0)
        self._cancel_work()

    def _cancel_work(self) -> None:
        if self._work is not None and not self._taking_slot:
            self._work.cancel()

    def report(self) -> pb.LeaseReport | None:
        """The lease as the grid is told of it; None before its start was granted."""
        if self.stage is Stage.CLAIMING:
            return None
        runs = self._attempt is not None
        state = lease_pb2.LEASE_STATE_RUNNING if runs else lease_pb2.LEASE_STATE_STARTING
        found = pb.LeaseReport(
            lease_id=self.want.lease_id, state=state, phases=self.phases, runtime=self._plan.runtime
        )
        if self._exit is not None and domain.outcome_of_exit(self._exit.reason) in _WITH_EXIT:
            found.state = lease_pb2.LEASE_STATE_EXITED
            found.exit.CopyFrom(convert.process_exit(self._exit))
        return found

    # -- the start ------------------------------------------------------------------------------

    async def _begin(self) -> None:
        await BEFORE_CLAIM.hit_async()
        launch = await self._claim()
        if launch is None:
            return
        await AFTER_GRANT.hit_async()
        self.stage = Stage.STARTING
        self._later(self._world.limits.progress_seconds)
        failed = None
        try:
            self._attempt = await self._start(launch)
        except Unwanted:
            failed = (Outcome.CANCELLED, self.stop_reason)
        except TimeoutError:
            failed = (Outcome.RUNTIME_FAILED, "the inputs could not be had in time")
        except Exception as error:  # whatever it is, the lease must not stay open over it
            failed = _failure(error)
        if failed is not None and not self.killed:
            await self._complete(*failed)

    async def _claim(self) -> launch_pb2.LaunchSpec | None:
        """The launch, or None when the lease has ended here."""

        async def ask() -> pb.StartClaimResponse:
            self.asked_epoch = self._world.epoch()
            request = pb.StartClaimRequest(
                lease_id=self.want.lease_id,
                attempt=self.want.attempt,
                session_epoch=self.asked_epoch,
            )
            answer: pb.StartClaimResponse = await self._world.grid.decisions.StartClaim(request)
            return answer

        answer = await insist(ask, self._world.backoff(), until=lambda: self.killed)
        if answer.outcome == pb.CLAIM_OUTCOME_ALREADY_CLAIMED:
            await self._complete(Outcome.ABANDONED, "the node has no process for it")
            return None
        if answer.outcome != pb.CLAIM_OUTCOME_GRANT:
            raise Revoked
        self._grant = answer.attempt_grant
        self._granted.set()
        return answer.launch

    async def _start(self, spec: launch_pb2.LaunchSpec) -> Attempt:
        runtime = self._world.runtime(self.want.runtime)
        self._plan = journal.Plan(tuple(spec.expected_artifacts), runtime.name)
        self._taking_slot = True
        prepared = await self._unless_stopped(
            runtime.prepare(convert.task_launch(self.want, spec), self._report)
        )
        self._taking_slot = False
        try:
            await self._unless_stopped(self._stage(prepared, spec))
            self._world.journal.keep(self.want.lease_id, self._plan)
        except BaseException:
            await runtime.discard(prepared)
            raise
        # From here on a stop reaches the process itself.
        try:
            attempt = await runtime.start(prepared, self._world.deadline())
        except Exception:
            await runtime.discard(prepared)  # nothing runs, so nobody else would
            raise
        await AFTER_START.hit_async()
        return attempt

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; raises Unwanted when a stop comes first."""
        if self.stop_reason:
            work.close()
            raise Unwanted
        task = asyncio.ensure_future(work)
        self._work = task
        try:
            return await task
        except asyncio.CancelledError:
            if self.stop_reason:
                raise Unwanted from None
            raise
        finally:
            self._work = None

    async def _stage(self, prepared: Prepared, spec: launch_pb2.LaunchSpec) -> None:
        if not spec.inputs:
            return
        files = [
            inputs.Input(each.mount_path, each.url, each.size_bytes, each.sha256)
            for each in spec.inputs
        ]
        async with asyncio.timeout(self._world.limits.input_seconds_max):
            await inputs.stage(self._world.http, prepared.staging, files, self._world.backoff())

    # -- the end --------------------------------------------------------------------------------

    async def _follow(self, attempt: Attempt) -> None:
        self.stage = Stage.RUNNING
        if self.stop_reason or self.killed:
            attempt.stop(self.stop_reason, self._grace_seconds)
        if self._world.deadline() > self._world.clock.monotonic():
            # Else it keeps the deadline it has: that of its start, or of the former daemon.
            attempt.renew(self._world.deadline())
        self._later(self._world.limits.quiet_seconds)
        feed = None
        if self._granted.is_set():
            feed = self._world.logs.attach(self.want.lease_id, attempt.logs, self._grant)
        self._exit = await attempt.wait()
        self.stage = Stage.ENDING
        if not self.killed:
            self._later(self._world.limits.quiet_seconds)
            self._work = asyncio.ensure_future(self._finish(attempt, self._exit, feed))
            try:
                await self._work
            except asyncio.CancelledError:
                if not self.killed:
                    raise
            finally:
                self._work = None
        await attempt.release()

    async def _finish(self, attempt: Attempt, ended: Exit, feed: Feed | None) -> None:
        if feed is None:  # kept from a former daemon, whose grant is gone
            await self._granted.wait()
            feed = self._world.logs.attach(self.want.lease_id, attempt.logs, self._grant)
        log = asyncio.ensure_future(self._world.logs.finish(feed, ended.spool_bytes))
        try:
            sent = await self._collect(attempt, ended)
            await log
        finally:
            log.cancel()
        outcome = domain.outcome_of_exit(ended.reason)
        message = ended.message
        if sent.failed:
            names = ", ".join(f"{name} ({why})" for name, why in sent.failed[:3])
            message = f"{message} artifacts were not kept: {names}".strip()
        await BEFORE_COMPLETE.hit_async()
        await self._complete(outcome, message, sent, gap=feed.gap)

    async def _collect(self, attempt: Attempt, ended: Exit) -> Sent:
        if ended.reason in (ExitReason.RUNTIME_LOST, ExitReason.START_FAILED):
            return Sent()
        try:
            with await attempt.artifacts() as files:
                for refusal in files.refusals:
                    text = f"{refusal.path} was not collected: {refusal.reason.value}"
                    self._report(Phase.NOTICE, text, {"level": "warning"})
                return await self._world.uploads.send(files, lambda: self._grant)
        except OSError as error:  # the node's trouble with its own disk must not hold the lease
            _log.exception("artifacts could not be read", lease_id=self.want.lease_id)
            return Sent(failed=(("artifacts", error.strerror or type(error).__name__),))

    async def _complete(
        self, outcome: Outcome, message: str, sent: Sent | None = None, *, gap: bool = False
    ) -> None:
        self.stage = Stage.ENDING
        found = sent or Sent()
        request = pb.CompleteRequest(
            lease_id=self.want.lease_id,
            attempt=self.want.attempt,
            outcome=lease_pb2.LeaseOutcome.Value(f"LEASE_OUTCOME_{outcome}"),
            artifacts=len(found.names),
            artifact_bytes=found.size_bytes,
            log_gap=gap,
            message=message[:500],
            phases=self.phases,
            missing_artifacts=domain.missing_artifacts(self._plan.expected_artifacts, found.names),
            runtime=self._plan.runtime,
        )
        if self._exit is not None and outcome in _WITH_EXIT:
            request.exit.CopyFrom(convert.process_exit(self._exit))

        async def say() -> None:
            request.session_epoch = self._world.epoch()
            try:
                await self._world.grid.decisions.Complete(request)
            except GridError as error:
                if error.code in _FINAL:  # it is not ours any more, or was never
                    _log.warning("complete refused", lease_id=request.lease_id, why=error.message)
                    return
                if error.code in _LATER:
                    raise Unavailable(error.message) from error
                raise

        await insist(say, self._world.backoff(), until=lambda: self.killed)
        self._quiet()

    # -- news -----------------------------------------------------------------------------------

    def _report(self, phase: Phase, message: str, details: Mapping[str, Any]) -> None:
        self.phases.append(convert.phase_report(phase, message, details))
        if phase in (Phase.IMAGE_DOWNLOAD, Phase.RUNTIME_PREPARATION):
            self._taking_slot = phase is Phase.RUNTIME_PREPARATION
        if phase is Phase.IMAGE_DOWNLOAD:
            self._world.tell(self.want.lease_id)

    def _later(self, seconds: float) -> None:
        """Tells the grid then, unless the next step comes first."""
        self._quiet()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._world.tell, self.want.lease_id)

    def _quiet(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_WITH_EXIT = frozenset({Outcome.EXITED, Outcome.CANCELLED})


def _failure(error: Exception) -> tuple[Outcome, str]:
    if isinstance(error, GridError):
        return domain.outcome_of_failure(error.reason), error.message
    if isinstance(error, OSError):
        return Outcome.RUNTIME_FAILED, f"the node failed to start it: {error.strerror or error}"
    _log.error("a start failed in an unexpected way", exc_info=error)
    return Outcome.RUNTIME_FAILED, f"the node failed to start it: {type(error).__name__}"
