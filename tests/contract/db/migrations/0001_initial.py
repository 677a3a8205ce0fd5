"""The tables as they are now; a real service would freeze its own copy."""

from __future__ import annotations

from libs.db import Tx
from tests.contract.db.tables import METADATA


def upgrade(tx: Tx) -> None:
    tx.create_all(METADATA)
