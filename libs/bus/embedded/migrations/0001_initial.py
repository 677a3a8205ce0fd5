"""The log, the places of the groups, and the name of the bus."""

from __future__ import annotations

import secrets

from sqlalchemy import MetaData

from libs.bus.embedded.tables import define
from libs.db import Tx


def upgrade(tx: Tx) -> None:
    metadata = MetaData()
    _, _, bus = define(metadata)
    tx.create_all(metadata)
    tx.execute(bus.insert(), {"identity": secrets.token_hex(8), "end_offset": 0})
