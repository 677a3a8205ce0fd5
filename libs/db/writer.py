"""The write side of SQLite: a queue, groups that share a commit, one thread that awaits the disk.

    write() -> queue -> _next -> _begin -> _run (the functions, on the loop)
                                              -> _commit (on the thread) -> _committed -> _settle

The connection is used by the loop and by the thread in turn, never by both: `_busy` is true from
the first function of a group until its callers have been told.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from libs import failpoints
from libs.db import group as groups
from libs.db.committer import Answer, Committer
from libs.db.database import OutboxListener
from libs.db.errors import is_busy, is_fatal, translate
from libs.db.files import Opened
from libs.db.group import Call, Group
from libs.db.tx import Tx
from libs.telemetry import logger, metrics

T = TypeVar("T")
_log = logger("db")
_commits = metrics.counter("grid_db_commits_total", "Commits that changed a row.", ("service",))
_writes = metrics.counter("grid_db_writes_total", "Units of work that succeeded.", ("service",))
_AFTER_COMMIT = failpoints.register(
    "db.after_commit", "a group of writes is durable, and nobody has been told yet"
)
_LOCK_WAIT_MILLISECONDS = 10_000


class Writer:
    """Runs units of work in the order they came, many to a commit."""

    def __init__(
        self,
        service: str,
        opened: Opened,
        make_tx: Callable[[Opened], Tx],
        fatal: Callable[[BaseException], NoReturn],
        commit_on_loop: Callable[[], None] | None = None,
    ) -> None:
        """`commit_on_loop` is given when a commit costs no fsync; it is called after each."""
        self._service = service
        self._opened, self._raw = opened, opened.raw
        self._make_tx = make_tx
        self._fatal = fatal
        self._commit_on_loop = commit_on_loop
        self._listeners: list[OutboxListener] = []
        self._queue: deque[Call] = deque()
        self._busy = False
        self._rested = asyncio.Event()
        self._commits = _commits.labels(service)
        self._writes = _writes.labels(service)
        self._loop = asyncio.get_running_loop()
        self.thread = Committer(f"db-{service}", self._loop)

    def listen(self, listener: OutboxListener) -> None:
        """Tells `listener` of the events of each commit."""
        self._listeners.append(listener)

    async def write(self, work: Callable[[Tx], T], long: bool) -> T:
        """Queues `work` and waits until it is durable or has failed."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.append(Call(work, future, contextvars.copy_context(), long))
        if not self._busy:
            self._busy = True
            # Not at once: what else is ready in this turn of the loop may join the group.
            self._loop.call_soon(self._next)
        return await future

    async def close(self) -> None:
        """Waits until the queue is empty, then ends the thread."""
        while self._busy:
            self._rested.clear()
            await self._rested.wait()
        self.thread.close()

    def _next(self) -> None:
        calls = groups.take(self._queue)
        if not calls:
            self._busy = False
            self._rested.set()
        elif calls[0].long:
            self.thread.submit(lambda: self._run_long(calls), lambda a: self._ran_long(calls, a))
        else:
            self._begin(calls)

    def _begin(self, calls: list[Call]) -> None:
        try:
            self._raw.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if is_busy(error):
                # Another process is writing: wait for it where waiting hurts nobody.
                self.thread.submit(self._begin_waiting, lambda answer: self._begun(calls, answer))
            else:
                self._refuse(calls, error)
        else:
            self._run(calls)

    def _begin_waiting(self) -> None:
        self._raw.execute(f"PRAGMA busy_timeout={_LOCK_WAIT_MILLISECONDS}")
        try:
            self._raw.execute("BEGIN IMMEDIATE")
        finally:
            self._raw.execute("PRAGMA busy_timeout=0")

    def _begun(self, calls: list[Call], answer: Answer[None]) -> None:
        if answer.error is None:
            self._run(calls)
        else:
            self._refuse(calls, answer.error)

    def _refuse(self, calls: list[Call], error: BaseException) -> None:
        if is_fatal(error):
            self._fatal(error)
        self._settle(Group(failed=[(call, error) for call in calls]))

    def _run(self, calls: list[Call]) -> None:
        before = self._raw.total_changes
        group = groups.run(self._raw, calls, self._tx)
        self._queue.extendleft(reversed(calls[group.reached :]))
        if group.fatal is not None:
            self._fatal(group.fatal)
        changed = self._raw.total_changes != before
        if self._commit_on_loop is None and changed:
            self._submit_commit(group)
            return
        # Nothing to wait for: no row changed, or nobody asked for an fsync.
        try:
            self._commit()
        except Exception as error:
            self._committed(group, error)
        else:
            self._committed(group, None, changed=changed)
            if self._commit_on_loop is not None:
                self._commit_on_loop()

    def _run_long(self, calls: list[Call]) -> Group:
        self._begin_waiting()
        return groups.run(self._raw, calls, self._tx)

    def _ran_long(self, calls: list[Call], answer: Answer[Group]) -> None:
        if answer.value is None:
            assert answer.error is not None
            self._refuse(calls, answer.error)
        elif answer.value.fatal is not None:
            self._fatal(answer.value.fatal)
        else:
            self._submit_commit(answer.value)

    def _submit_commit(self, group: Group) -> None:
        self.thread.submit(self._commit, lambda answer: self._committed(group, answer.error))

    def _commit(self) -> None:
        if self._raw.in_transaction:
            self._raw.execute("COMMIT")
            _AFTER_COMMIT.hit()

    def _committed(
        self, group: Group, error: BaseException | None, *, changed: bool = True
    ) -> None:
        if error is not None:
            if is_fatal(error):
                self._fatal(error)
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
            group.lost(error)
        if changed:
            self._commits.inc()
        self._writes.inc(len(group.done))
        self._settle(group)

    def _settle(self, group: Group) -> None:
        """Tells everybody, then goes on with what has come in the meantime."""
        if group.events:
            for listener in self._listeners:
                _guarded(lambda tell=listener: tell(group.events))  # type: ignore[misc]
        for hook in group.hooks:
            _guarded(hook)
        for call, value in group.done:
            if not call.future.done():
                call.future.set_result(value)
        for call, error in group.failed:
            if not call.future.done():
                call.future.set_exception(_settable(translate(error, self._service)))
        self._loop.call_soon(self._next)

    def _tx(self) -> Tx:
        return self._make_tx(self._opened)


def _guarded(hook: Callable[[], Any]) -> None:
    # What runs after a commit is a hint; it must not fail the write that has succeeded.
    try:
        hook()
    except Exception:
        _log.exception("a hook after a commit failed")


def _settable(error: BaseException) -> BaseException:
    if isinstance(error, StopIteration):
        replaced = RuntimeError("a unit of work raised StopIteration")
        replaced.__cause__ = error
        return replaced
    return error
