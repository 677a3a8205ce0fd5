"""Environment and callback token at rest."""

from __future__ import annotations

import json

from libs.tenancy import Tenant
from services.jobs.domain.spec import Secrets
from services.jobs.service.ports import Tools

_TABLE = "job_secrets"


def seal(
    tools: Tools, tenant: Tenant, job_id: str, secrets: Secrets
) -> tuple[bytes | None, bytes | None]:
    """(environment, callback token), each None when there is none."""
    environment = token = None
    if secrets.environment:
        plain = json.dumps(secrets.environment).encode()
        environment = _seal(tools, tenant, f"{job_id}|environment", plain)
    if secrets.callback_token:
        plain = secrets.callback_token.encode()
        token = _seal(tools, tenant, f"{job_id}|callback_token", plain)
    return environment, token


def open_environment(tools: Tools, tenant: Tenant, job_id: str, sealed: bytes) -> dict[str, str]:
    """The environment that `seal` took. Raises SealBroken."""
    found: dict[str, str] = json.loads(_open(tools, tenant, f"{job_id}|environment", sealed))
    return found


def open_token(tools: Tools, tenant: Tenant, job_id: str, sealed: bytes) -> str:
    """The callback token that `seal` took. Raises SealBroken."""
    return _open(tools, tenant, f"{job_id}|callback_token", sealed).decode()


def _seal(tools: Tools, tenant: Tenant, row_id: str, plain: bytes) -> bytes:
    return tools.sealer.seal(plain, table=_TABLE, workspace_id=tenant.workspace_id, row_id=row_id)


def _open(tools: Tools, tenant: Tenant, row_id: str, sealed: bytes) -> bytes:
    return tools.sealer.open(sealed, table=_TABLE, workspace_id=tenant.workspace_id, row_id=row_id)
