"""Column types give back what they were given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.exc import StatementError

from libs.db import Database
from libs.db.types import from_micros, to_micros
from tests.contract.db.tables import ITEM


async def round_trip(database: Database, **values: Any) -> Any:
    row = {"id": 1, "name": "a", **values}

    def work(tx: Any) -> Any:
        tx.execute(ITEM.delete())
        tx.execute(ITEM.insert(), row)
        return tx.execute(select(ITEM.c.made_time, ITEM.c.labels)).one()

    return await database.write(work)


async def test_times_keep_their_microsecond_and_become_utc(database: Database) -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    time = datetime(2038, 1, 19, 8, 44, 8, 123457, tzinfo=zone)
    found = (await round_trip(database, made_time=time)).made_time
    assert found == time
    assert found.tzinfo is UTC
    assert (await round_trip(database, made_time=None)).made_time is None


async def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="aware"):
        await round_trip(database, made_time=datetime(2026, 1, 1))  # noqa: DTZ001 - the point


async def test_times_compare_in_sql(database: Database) -> None:
    early = datetime(1969, 12, 31, tzinfo=UTC)
    await round_trip(database, made_time=early)
    older = select(ITEM.c.id).where(ITEM.c.made_time < datetime(1970, 1, 1, tzinfo=UTC))
    assert await database.read(lambda tx: tx.execute(older).scalar_one()) == 1


@pytest.mark.parametrize("value", [{}, [], {"a": [1, None, "é\x00", 1.5, True]}, "text", 0, None])
async def test_json_comes_back(database: Database, value: Any) -> None:
    assert (await round_trip(database, labels=value)).labels == value


@given(st.datetimes(timezones=st.just(UTC)))
def test_micros_are_a_bijection(time: datetime) -> None:
    assert from_micros(to_micros(time)) == time
