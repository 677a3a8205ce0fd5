"""Units of work over SQL. The README argues the design."""

from libs.db.bulk import Bulk
from libs.db.database import Database, connect
from libs.db.errors import MigrationError, StorageUnavailable
from libs.db.outbox import OutboxEvent, OutboxTables, outbox_tables
from libs.db.retry import retry_stale
from libs.db.tx import Tx
from libs.db.types import JsonText, UtcTime

__all__ = [
    "Bulk",
    "Database",
    "JsonText",
    "MigrationError",
    "OutboxEvent",
    "OutboxTables",
    "StorageUnavailable",
    "Tx",
    "UtcTime",
    "connect",
    "outbox_tables",
    "retry_stale",
]
