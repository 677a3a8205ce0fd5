"""What a write promises: its own, whole, durable effect, whatever its neighbours do."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from libs.db import Database, OutboxEvent, StorageUnavailable, Tx, retry_stale
from libs.errors import Conflict, StaleWrite
from tests.contract.db.conftest import Store
from tests.contract.db.tables import ITEM, OUTBOX

COUNT = select(func.count()).select_from(ITEM)
NAMES = select(ITEM.c.name).order_by(ITEM.c.id)


def add(number: int, then: BaseException | None = None) -> Callable[[Tx], int]:
    def work(tx: Tx) -> int:
        tx.execute(ITEM.insert(), {"id": number, "name": f"item {number}"})
        if then is not None:
            raise then
        return number

    return work


def event(seq: int, key: str = "item_1") -> OutboxEvent:
    return OutboxEvent(f"evt_{key}_{seq}", "a.Topic", key, seq, b"\x00\xff", {"a": "b"})


async def names(database: Database) -> list[str]:
    return await database.read(lambda tx: list(tx.execute(NAMES).scalars()))


async def test_a_write_is_seen_elsewhere_when_it_returns(store: Store, database: Database) -> None:
    other = store.connect()
    await other.start()
    for number in range(20):
        assert await database.write(add(number)) == number
        assert await other.read(lambda tx: tx.execute(COUNT).scalar_one()) == number + 1
    await other.stop()


async def test_a_failing_function_leaves_nothing_and_harms_nobody(database: Database) -> None:
    failures = {number: ValueError(str(number)) for number in range(0, 300, 3)}
    results = await asyncio.gather(
        *(database.write(add(number, failures.get(number))) for number in range(300)),
        return_exceptions=True,
    )
    for number, result in enumerate(results):
        assert result is failures[number] if number in failures else result == number
    assert await names(database) == [f"item {n}" for n in range(300) if n not in failures]


async def test_a_broken_constraint_harms_nobody(database: Database) -> None:
    await database.write(add(1))
    results = await asyncio.gather(
        *(database.write(add(number)) for number in (0, 1, 2)), return_exceptions=True
    )
    assert results[0] == 0
    assert results[2] == 2
    assert isinstance(results[1], IntegrityError)
    assert await names(database) == ["item 0", "item 1", "item 2"]


async def test_a_function_may_recover_from_a_broken_constraint(database: Database) -> None:
    await database.write(add(1))

    def work(tx: Tx) -> str:
        with pytest.raises(IntegrityError):
            tx.execute(ITEM.insert(), {"id": 1, "name": "again"})
        return "recovered"

    assert await database.write(work) == "recovered"


async def test_functions_run_in_the_order_they_came(database: Database) -> None:
    ran: list[int] = []
    await asyncio.gather(
        *(database.write(lambda tx, n=n: ran.append(n)) for n in range(500))  # type: ignore[misc]
    )
    assert ran == list(range(500))


async def test_long_work_keeps_its_place_and_is_one_unit(database: Database) -> None:
    def bulk(tx: Tx) -> int:
        assert tx.execute(COUNT).scalar_one() == 1
        tx.execute(ITEM.insert(), [{"id": n, "name": f"item {n}"} for n in range(10, 1010)])
        return 1000

    before = asyncio.ensure_future(database.write(add(1)))
    during = asyncio.ensure_future(database.write(bulk, long=True))
    after = asyncio.ensure_future(database.write(lambda tx: tx.execute(COUNT).scalar_one()))
    assert list(await asyncio.gather(before, during, after)) == [1, 1000, 1001]
    with pytest.raises(ZeroDivisionError):
        await database.write(lambda tx: add(2)(tx) // 0, long=True)
    assert await database.read(lambda tx: tx.execute(COUNT).scalar_one()) == 1001


async def test_a_cancelled_caller_disturbs_nobody(database: Database) -> None:
    writes = [asyncio.ensure_future(database.write(add(number))) for number in range(50)]
    await asyncio.sleep(0)
    for number in range(0, 50, 2):
        writes[number].cancel()
    results = await asyncio.gather(*writes, return_exceptions=True)
    kept = await names(database)
    for number, result in enumerate(results):
        if not isinstance(result, asyncio.CancelledError):
            assert result == number
            assert f"item {number}" in kept
    assert await database.write(add(100)) == 100


async def test_a_caller_cancelled_while_the_disk_works_loses_only_the_answer(
    database: Database,
) -> None:
    ran = asyncio.Event()
    told: list[OutboxEvent] = []
    database.on_outbox(told.extend)

    def work(tx: Tx) -> None:
        add(1)(tx)
        tx.emit(event(1))
        ran.set()

    write = asyncio.ensure_future(database.write(work))
    await ran.wait()
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    await database.write(lambda tx: None)
    assert await names(database) == ["item 1"]
    assert [e.event_id for e in told] == ["evt_item_1_1"]


async def test_hooks_run_after_the_commit_and_only_then(database: Database) -> None:
    ran: list[str] = []

    def work(name: str, number: int, then: BaseException | None = None) -> Callable[[Tx], None]:
        def inner(tx: Tx) -> None:
            tx.after_commit(lambda: ran.append(name))
            assert name not in ran
            add(number, then)(tx)

        return inner

    def failing_hook(tx: Tx) -> None:
        tx.after_commit(lambda: 1 // 0)  # type: ignore[arg-type]

    await asyncio.gather(
        database.write(work("a", 1)),
        database.write(work("b", 2, ValueError())),
        database.write(failing_hook),
        database.write(work("c", 3)),
        return_exceptions=True,
    )
    assert ran == ["a", "c"]


async def test_what_is_left_for_the_end_is_part_of_the_unit(database: Database) -> None:
    def last(tx: Tx, kept: list[int], then: BaseException | None) -> None:
        add(kept[0], then)(tx)
        tx.emit(event(kept[0]))

    def work(tx: Tx, then: BaseException | None = None) -> int:
        kept = tx.memo("kept", list[int])
        if not kept:
            tx.before_commit(lambda: last(tx, kept, then))
        kept.append(len(kept) + 1)
        return len(tx.memo("kept", list[int]))

    with pytest.raises(ValueError, match="no"):
        await database.write(lambda tx: work(tx, ValueError("no")))
    assert await names(database) == []
    assert await database.write(lambda tx: work(tx) + work(tx)) == 3
    assert await names(database) == ["item 1"]
    assert await database.read(
        lambda tx: tx.execute(select(OUTBOX.outbox.c.event_id)).scalars().all()
    )


async def test_events_are_rows_of_the_commit_and_told_in_its_order(database: Database) -> None:
    told: list[OutboxEvent] = []
    database.on_outbox(told.extend)

    def emit(seq: int, then: BaseException | None = None) -> Callable[[Tx], None]:
        def work(tx: Tx) -> None:
            tx.emit(event(seq))
            add(seq, then)(tx)

        return work

    await asyncio.gather(
        *(database.write(emit(seq, ValueError() if seq == 2 else None)) for seq in (1, 2, 3)),
        return_exceptions=True,
    )
    assert told == [event(1), event(3)]
    rows = await database.read(lambda tx: tx.execute(select(OUTBOX.outbox)).mappings().all())
    assert [(r["aggregate_seq"], r["payload"], r["headers"]) for r in rows] == [
        (1, b"\x00\xff", {"a": "b"}),
        (3, b"\x00\xff", {"a": "b"}),
    ]
    assert all(row["published_time"] is None for row in rows)


async def test_a_sequence_number_is_used_once_per_key(database: Database) -> None:
    told: list[OutboxEvent] = []
    database.on_outbox(told.extend)
    again = OutboxEvent("evt_other", "a.Topic", "item_1", 1, b"")
    results = await asyncio.gather(
        *(database.write(lambda tx, e=e: tx.emit(e)) for e in (event(1), again, event(2))),  # type: ignore[misc]
        return_exceptions=True,
    )
    assert results[0] is results[2] is None
    assert isinstance(results[1], IntegrityError)
    assert told == [event(1), event(2)]


async def test_a_tx_ends_with_its_function(database: Database) -> None:
    kept: list[Tx] = []
    await database.write(kept.append)
    await database.read(kept.append)
    uses: list[Callable[[Tx], object]] = [
        lambda tx: tx.execute(COUNT),
        Tx.now,
        lambda tx: tx.emit(event(1)),
        lambda tx: tx.after_commit(lambda: None),
    ]
    for tx in kept:
        for use in uses:
            with pytest.raises(RuntimeError, match="outside the function"):
                use(tx)


@pytest.mark.parametrize("kind", ["write", "read"])
async def test_what_outlives_the_unit_is_refused(database: Database, kind: str) -> None:
    async def work(tx: Tx) -> None: ...

    run: Callable[[Any], Any] = getattr(database, kind)
    with pytest.raises(TypeError, match="plain function"):
        await run(work)
    with pytest.raises(TypeError, match="fetch the rows"):
        await run(lambda tx: tx.execute(COUNT))


async def test_a_read_changes_nothing(database: Database) -> None:
    with pytest.raises(DBAPIError):
        await database.read(add(1))
    with pytest.raises(RuntimeError, match="emit"):
        await database.read(lambda tx: tx.emit(event(1)))
    assert await names(database) == []
    await database.write(add(1))


async def test_time_stands_still_in_a_unit(database: Database) -> None:
    def work(tx: Tx) -> bool:
        return tx.now() == tx.now() and tx.now().tzinfo is not None

    assert await database.write(work)


async def test_stop_finishes_what_was_accepted(store: Store) -> None:
    database = store.connect()
    await database.start()
    writes = [asyncio.ensure_future(database.write(add(number))) for number in range(300)]
    await asyncio.sleep(0)
    await database.stop()
    assert await asyncio.gather(*writes) == list(range(300))
    with pytest.raises(StorageUnavailable):
        await database.write(add(1000))
    with pytest.raises(StorageUnavailable):
        await database.read(lambda tx: None)
    await database.stop()
    await database.start()
    assert len(await names(database)) == 300
    await database.stop()


async def test_guarded_updates_are_retried_until_one_fits(database: Database) -> None:
    await database.write(add(1))
    version = select(ITEM.c.version).where(ITEM.c.id == 1)

    async def bump() -> None:
        seen = await database.read(lambda tx: tx.execute(version).scalar_one())
        await asyncio.sleep(0)
        guarded = (
            ITEM.update().where(ITEM.c.id == 1, ITEM.c.version == seen).values(version=seen + 1)
        )

        def work(tx: Tx) -> None:
            if tx.execute(guarded).rowcount == 0:
                raise StaleWrite

        await database.write(work)

    await asyncio.gather(*(retry_stale(bump, attempts=50) for _ in range(20)))
    assert await database.read(lambda tx: tx.execute(version).scalar_one()) == 21


async def test_a_row_that_never_holds_still_is_a_conflict() -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        raise StaleWrite

    with pytest.raises(Conflict):
        await retry_stale(work, attempts=3)
    assert tries == 3


async def test_what_a_unit_remembered_needs_no_collector(database: Database) -> None:
    class Remembered:
        tx: Tx | None = None

    def work(tx: Tx) -> weakref.ref[Remembered]:
        found = tx.memo("key", Remembered)
        found.tx = tx
        tx.before_commit(lambda: tx.after_commit(lambda: told.append(found.tx is not None)))
        return weakref.ref(found)

    told: list[bool] = []
    gc.disable()
    try:
        left = await database.write(work)
        await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()
    assert told == [True]
