"""The door for calls."""

from services.logs.rpc.ingest import LogIngestService
from services.logs.rpc.read import LogInternalService, LogService

__all__ = ["LogIngestService", "LogInternalService", "LogService"]
