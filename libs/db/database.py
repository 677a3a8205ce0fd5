"""The port, and the choice of an adapter by URL scheme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import MetaData

from libs.clock import Clock
from libs.db.outbox import OutboxEvent
from libs.db.tx import Tx

T = TypeVar("T")
OutboxListener = Callable[[Sequence[OutboxEvent]], None]


class Database(Protocol):
    """One service's tables. A transaction is a synchronous function of a Tx."""

    @property
    def service(self) -> str:
        """The service that owns the tables."""

    @property
    def metadata(self) -> MetaData:
        """The tables, as the code knows them."""

    async def start(self) -> None:
        """Opens the store and brings its schema up to date. Raises MigrationError when it can't."""

    async def stop(self) -> None:
        """Finishes what was accepted, then closes; later calls get StorageUnavailable."""

    async def write(self, work: Callable[[Tx], T], *, long: bool = False) -> T:
        """Runs `work` as one unit: when this returns, its effects are durable; when it raises, none
        of them is kept, save after a failure to learn the outcome of the commit itself.

        `work` runs at most once, on the event loop, and so must be short: a few milliseconds. Set
        `long` for bulk work (retention, backfill), which then runs on a thread and may not touch
        what belongs to the loop. A cancelled caller may find its work done or not done.
        """

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Runs `work` on a snapshot that sees every finished `write`; it cannot change anything.

        `work` must be free of side effects: one that turns out to be slow is interrupted and run
        again on a thread.
        """

    def on_outbox(self, listener: OutboxListener) -> None:
        """Calls `listener` on the event loop with the events of each commit, in commit order."""


def connect(
    url: str, *, metadata: MetaData, migrations: Path, clock: Clock, service: str
) -> Database:
    """The database of `service`: `sqlite:///absolute/or/relative/path`. Opened by `start`."""
    scheme, _, path = url.partition(":///")
    if scheme == "sqlite" and path:
        from libs.db.sqlite import SqliteDatabase

        return SqliteDatabase(
            Path(path), metadata=metadata, migrations=migrations, clock=clock, service=service
        )
    raise ValueError(f"{service}: database url '{url.split('@')[-1]}' is not sqlite:///<path>")
