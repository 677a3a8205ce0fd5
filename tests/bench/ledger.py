"""Speed of the ledger (P9), beside plain SQL in the same run: `python -m tests.bench.ledger`.

Two limits, both with the ledger's durability (one fsync a commit) on the same disk:
  per commit  reserves that come one by one, against two updates and two inserts a commit
  in bulk     closes in batches of 128, against their transfers alone by executemany; our side also
              reads and writes the bill, the meter reading and the fact that is told
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from libs.clock import SystemClock
from libs.db import Database, Tx, connect
from libs.ids import IdSource
from libs.tenancy import Tenant
from libs.wake import connect as connect_wake
from services.billing import convert, tables
from services.billing.config import BillingConfig
from services.billing.domain import Close, Outcome
from services.billing.repository import BillRows, LedgerRows
from services.billing.service import BillingService, HoldOrder
from tests.unit.billing.world import Jobs

MIGRATIONS = Path(__file__).parents[2] / "services/billing/migrations"
Work = Callable[[sqlite3.Connection, int], None]
WORKSPACE = Tenant("ws_bench")
SINGLES, BULK, BATCH = 1_000, 8_192, 128
PRICE = 3_600_000
PLAIN = (
    "CREATE TABLE balances (id TEXT PRIMARY KEY, available INTEGER CHECK (available >= 0))",
    "CREATE TABLE transfers (id TEXT PRIMARY KEY, pending TEXT UNIQUE, amount INTEGER NOT NULL)",
    "CREATE TABLE postings (transfer TEXT, line TEXT, debit TEXT, credit TEXT, amount INTEGER,"
    " PRIMARY KEY (transfer, line))",
    "INSERT INTO balances VALUES ('a', 1000000000000), ('b', 1000000000000)",
)


def plain(folder: Path) -> sqlite3.Connection:
    raw = sqlite3.connect(folder / "plain.db", isolation_level=None)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("PRAGMA synchronous=FULL")
    for statement in PLAIN:
        raw.execute(statement)
    return raw


def one(raw: sqlite3.Connection, number: int) -> None:
    raw.execute("BEGIN IMMEDIATE")
    raw.execute("INSERT INTO transfers VALUES (?, NULL, 5)", (f"one:{number}",))
    raw.execute("INSERT INTO postings VALUES (?, '', 'a', 'b', 5)", (f"one:{number}",))
    raw.execute("UPDATE balances SET available = available - 5 WHERE id = 'a'")
    raw.execute("UPDATE balances SET available = available + 5 WHERE id = 'b'")
    raw.execute("COMMIT")


def many(raw: sqlite3.Connection, start: int) -> None:
    """A batch of settlements: a transfer, three postings and four moves of a balance each."""
    names = [f"many:{number}" for number in range(start, start + BATCH)]
    raw.execute("BEGIN IMMEDIATE")
    raw.executemany("INSERT INTO transfers VALUES (?, NULL, 9)", [(name,) for name in names])
    raw.executemany(
        "INSERT INTO postings VALUES (?, ?, 'b', 'a', 3)",
        [(name, line) for name in names for line in ("node", "fee", "rest")],
    )
    moves = [(-3, "b"), (3, "a")] * (3 * BATCH)
    raw.executemany("UPDATE balances SET available = available + ? WHERE id = ?", moves)
    raw.execute("COMMIT")


def rate(raw: sqlite3.Connection, count: int, step: int, work: Work) -> float:
    """Things a second; `work` does `step` of them, from the number that it is given."""
    begun = time.perf_counter()
    for start in range(0, count, step):
        work(raw, start)
    return count / (time.perf_counter() - begun)


async def ledger(folder: Path) -> tuple[Database, BillingService]:
    clock = SystemClock()
    database = connect(
        f"sqlite:///{folder}/billing.db",
        metadata=tables.metadata,
        migrations=MIGRATIONS,
        clock=clock,
        service="billing",
    )
    await database.start()
    ids = IdSource(clock)
    service = BillingService(
        database=database,
        ledger=LedgerRows(),
        bills=BillRows(),
        jobs=Jobs(),
        ids=ids,
        clock=clock,
        wake=connect_wake("memory://"),
        config=BillingConfig(),
        tell=convert.event_maker(ids),
    )
    await service.credit(WORKSPACE, "bench", 10**15, "bench")
    return database, service


def order(number: int) -> HoldOrder:
    return HoldOrder(f"job_{number}", 1, 0, 1_000, PRICE)


def close(number: int) -> Close:
    now = SystemClock().now()
    return Close(
        job_id=f"job_{number}",
        attempt=1,
        task_index=0,
        lease_id=f"lease_{number}",
        allocation_id=f"alc_{number}",
        node_id="node_1",
        outcome=Outcome.EXITED,
        claimed_time=now,
        exited_time=now + timedelta(seconds=0.5),
        closed_time=now + timedelta(seconds=1),
        started=True,
        price_micros_per_hour=PRICE,
        simulated=False,
    )


async def singles(service: BillingService) -> float:
    begun = time.perf_counter()
    for number in range(SINGLES):
        await service.reserve(WORKSPACE, order(number))
    return SINGLES / (time.perf_counter() - begun)


def settle(tx: Tx, service: BillingService, batch: list[Close]) -> None:
    for each in batch:
        service.judge.queued(tx, WORKSPACE, each.job_id, 1, 1)
        service.judge.closed(tx, WORKSPACE, each)


async def bulk(database: Database, service: BillingService) -> float:
    """Closes a second, each a whole settlement with its fact."""
    numbers = range(SINGLES, SINGLES + BULK)
    await asyncio.gather(*(service.reserve(WORKSPACE, order(number)) for number in numbers))
    begun = time.perf_counter()
    for start in range(SINGLES, SINGLES + BULK, BATCH):
        batch = [close(number) for number in range(start, start + BATCH)]
        await database.write(lambda tx, batch=batch: settle(tx, service, batch))  # type: ignore[misc]
    return BULK / (time.perf_counter() - begun)


def show(name: str, ours: float, base: float) -> None:
    print(f"{name:<32}{ours:>8,.0f}   plain SQL {base:>8,.0f}   ratio {ours / base:.2f}   goal 0.7")


async def main() -> None:
    """Prints all figures, A B A B."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = plain(folder)
        database, service = await ledger(folder)
        base = rate(raw, SINGLES, 1, one)
        show("reserves a second, one by one", await singles(service), base)
        base = rate(raw, BULK, BATCH, many)
        show("settlements a second, by 128", await bulk(database, service), base)
        await database.stop()
        raw.close()


if __name__ == "__main__":
    asyncio.run(main())
