"""The log, the groups' places in it, and the bus's own name."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    select,
)
from sqlalchemy.dialects.sqlite import insert

from libs.db.bulk import Bulk
from libs.db.types import JsonText, UtcTime


def define(metadata: MetaData) -> tuple[Table, Table, Table]:
    """Adds the tables; the first migration calls this too, and so it never changes."""
    log = Table(
        "log",
        metadata,
        Column("offset", Integer, primary_key=True, autoincrement=False),
        Column("topic", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("event_id", Text, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("headers", JsonText, nullable=False),
        Column("created_time", UtcTime, nullable=False),
    )
    place = Table(
        "place",
        metadata,
        Column("group_name", Text, primary_key=True),
        Column("topic", Text, primary_key=True),
        Column("offset", Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    bus = Table(
        "bus",
        metadata,
        Column("identity", Text, primary_key=True),
        # Retention may delete the newest row of a quiet bus; its offset must not be used again.
        Column("end_offset", Integer, nullable=False),
    )
    return log, place, bus


METADATA = MetaData()
LOG, PLACE, BUS = define(METADATA)

APPEND = Bulk(
    LOG.insert(), "offset", "topic", "key", "event_id", "payload", "headers", "created_time"
)
SELECT_BUS = select(BUS.c.identity, BUS.c.end_offset)
SET_END = BUS.update().values(end_offset=bindparam("end"))
LAST = select(func.coalesce(func.max(LOG.c.offset), 0))
PAGE = (
    select(LOG.c.topic, LOG.c.key, LOG.c.event_id, LOG.c.payload, LOG.c.headers, LOG.c.offset)
    .where(LOG.c.offset > bindparam("after"), LOG.c.offset <= bindparam("upto"))
    .where(LOG.c.topic.in_(bindparam("topics", expanding=True)))
    .order_by(LOG.c.offset)
    .limit(bindparam("page_size"))
)
PLACES = select(PLACE.c.group_name, PLACE.c.topic, PLACE.c.offset)
_put = insert(PLACE)
PUT_PLACE = Bulk(
    _put.on_conflict_do_update(
        index_elements=["group_name", "topic"], set_={"offset": _put.excluded.offset}
    ),
    "group_name",
    "topic",
    "offset",
)
OLDEST_KEPT = (
    select(LOG.c.offset)
    .where(LOG.c.created_time >= bindparam("since"))
    .order_by(LOG.c.offset)
    .limit(1)
)
DROP_BEFORE = delete(LOG).where(LOG.c.offset < bindparam("first"))
