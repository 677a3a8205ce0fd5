"""One group of units of work that share a commit."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any

from sqlalchemy import Result

from libs.db.errors import StorageUnavailable, is_fatal
from libs.db.outbox import OutboxEvent
from libs.db.tx import Hook, Tx

CALLS_MAX = 128
# The loop serves other people too: a group that has run this long commits what it has.
SLICE_SECONDS = 0.005


@dataclass(slots=True)
class Call:
    """A queued unit of work and the caller that waits for it."""

    work: Callable[[Tx], Any]
    future: asyncio.Future[Any]
    context: contextvars.Context
    long: bool = False


@dataclass(slots=True)
class Group:
    """What ran between one BEGIN and one COMMIT."""

    done: list[tuple[Call, Any]] = field(default_factory=list)
    failed: list[tuple[Call, BaseException]] = field(default_factory=list)
    events: list[OutboxEvent] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)
    fatal: BaseException | None = None
    reached: int = 0

    def lost(self, cause: BaseException) -> None:
        """Turns every success into `cause`: the transaction they were in is gone."""
        self.failed += [(call, cause) for call, _ in self.done]
        self.done, self.events, self.hooks = [], [], []


def take(queue: deque[Call]) -> list[Call]:
    """The next calls that may share a commit; a long call goes alone."""
    if queue and queue[0].long:
        return [queue.popleft()]
    calls: list[Call] = []
    while queue and len(calls) < CALLS_MAX and not queue[0].long:
        calls.append(queue.popleft())
    return calls


def run(raw: sqlite3.Connection, calls: Sequence[Call], make: Callable[[], Tx]) -> Group:
    """Runs `calls` in the open transaction of `raw`, each in a savepoint of its own. What is not
    reached within the slice is left out; the first call is always reached."""
    group = Group()
    stop = time.perf_counter() + SLICE_SECONDS
    for call in calls:
        group.reached += 1
        if call.future.cancelled():
            group.failed.append((call, asyncio.CancelledError()))
            continue
        _run_one(raw, call, make(), group)
        if group.fatal is not None or time.perf_counter() > stop:
            break
        if not raw.in_transaction:
            # SQLite gave up the whole transaction (a full disk does that), not just the savepoint.
            group.lost(StorageUnavailable("the transaction was given up; try again"))
            break
    return group


def _run_one(raw: sqlite3.Connection, call: Call, tx: Tx, group: Group) -> None:
    raw.execute("SAVEPOINT call")
    try:
        value = call.context.run(_body, call.work, tx)
        raw.execute("RELEASE call")
    except BaseException as error:
        group.failed.append((call, error))
        group.fatal = error if is_fatal(error) else None
        if raw.in_transaction:
            raw.execute("ROLLBACK TO call")
            raw.execute("RELEASE call")
    else:
        group.done.append((call, value))
        group.events += tx.events
        group.hooks += tx.hooks
    finally:
        tx.close()


def _body(work: Callable[[Tx], Any], tx: Tx) -> Any:
    value = work(tx)
    check_value(value)
    tx.flush()
    return value


def check_value(value: Any) -> None:
    """Refuses what would outlive the unit of work: a coroutine or rows not yet fetched."""
    if isinstance(value, CoroutineType):
        value.close()
        raise TypeError("a unit of work is a plain function; this one is async")
    if isinstance(value, Result):
        raise TypeError("a unit of work returns values, not a result: fetch the rows inside it")
