"""What a new grid needs before its first job: an account, a workspace, credit, a key, a node.

Everything is idempotent, so that a second `make up` on the same home finds what the first one made.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from junglegrid.billing.v1 import billing_internal_service_pb2 as billing_pb
from junglegrid.billing.v1 import billing_internal_service_pb2_grpc as billing_grpc
from junglegrid.identity.v1 import identity_internal_service_pb2 as identity_pb
from junglegrid.identity.v1 import identity_internal_service_pb2_grpc as identity_grpc
from junglegrid.nodes.v1 import node_internal_service_pb2 as nodes_pb
from junglegrid.nodes.v1 import node_internal_service_pb2_grpc as nodes_grpc

from deploy.home import load_secrets
from libs.errors import Unauthenticated
from libs.rpc import Signer, as_service, connect

EMAIL = "dev@localhost"
WORKSPACE = "dev"
KEY_NAME = "make up"
SCOPES = ("jobs:estimate", "jobs:submit", "jobs:write", "jobs:read", "logs:read", "billing:read")
STARTER_MICROS = 25_000_000
# What the local node asks for. Not a market price: a development node earns test credit only.
GPU_PRICE_MICROS = 800_000
CPU_PRICE_MICROS = 40_000
CREDENTIALS = "credentials.env"


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to call the grid. `api_key` is a secret."""

    url: str
    api_key: str
    workspace_id: str


def open_internal(home: Path) -> grpc.aio.Channel:
    """A channel to the internal listener, as an operator who can read the home's secrets."""
    signer = Signer(load_secrets(home).principal)
    return connect(f"unix:{home}/grid.sock", principal_source=as_service("operator", signer))


async def workspace(channel: grpc.aio.Channel) -> tuple[str, str]:
    """The development account and workspace, with their starter credit."""
    identity = identity_grpc.IdentityInternalServiceStub(channel)
    account = await identity.CreateAccount(
        identity_pb.CreateAccountRequest(email=EMAIL, name="Developer")
    )
    found = await identity.CreateWorkspace(
        identity_pb.CreateWorkspaceRequest(account_id=account.account_id, name=WORKSPACE)
    )
    billing = billing_grpc.BillingInternalServiceStub(channel)
    await billing.Credit(
        billing_pb.CreditRequest(
            workspace_id=found.workspace_id,
            reference=f"starter:{found.workspace_id}",
            amount_micros=STARTER_MICROS,
            kind="starter",
        )
    )
    return account.account_id, found.workspace_id


async def credentials(channel: grpc.aio.Channel, home: Path, url: str) -> Credentials:
    """The key in `credentials.env` if the grid still knows it, else a new one, written there."""
    account_id, workspace_id = await workspace(channel)
    identity = identity_grpc.IdentityInternalServiceStub(channel)
    path = home / CREDENTIALS
    key = _read(path).get("JUNGLE_GRID_API_KEY", "")
    if not key or not await _known(channel, key):
        made = await identity.CreateApiKey(
            identity_pb.CreateApiKeyRequest(
                workspace_id=workspace_id, account_id=account_id, name=KEY_NAME, scopes=SCOPES
            )
        )
        key = made.api_key
    await asyncio.to_thread(_write, path, url, key)
    return Credentials(url, key, workspace_id)


async def enrolment(channel: grpc.aio.Channel, workspace_id: str) -> str:
    """A one-use token for the local node; a secret for five minutes."""
    nodes = nodes_grpc.NodeInternalServiceStub(channel)
    made = await nodes.CreateEnrolmentToken(
        nodes_pb.CreateEnrolmentTokenRequest(
            provider_id=workspace_id,
            provider_name="local",
            gpu_price_micros_per_hour=GPU_PRICE_MICROS,
            cpu_price_micros_per_hour=CPU_PRICE_MICROS,
        )
    )
    return made.enrolment_token


async def online(channel: grpc.aio.Channel, seconds: float) -> nodes_pb.NodeSummary | None:
    """The first node that is online, or None when none comes within `seconds`."""
    from junglegrid.nodes.v1 import node_event_pb2

    nodes = nodes_grpc.NodeInternalServiceStub(channel)
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        listing = await nodes.ListNodes(nodes_pb.ListNodesRequest())
        for found in listing.nodes:
            if found.node.state == node_event_pb2.NODE_STATE_ONLINE:
                return found
        await asyncio.sleep(0.05)
    return None


async def _known(channel: grpc.aio.Channel, key: str) -> bool:
    identity = identity_grpc.IdentityInternalServiceStub(channel)
    try:
        await identity.ResolveKey(identity_pb.ResolveKeyRequest(api_key=key))
    except Unauthenticated:
        return False
    return True


def _read(path: Path) -> Mapping[str, str]:
    if not path.exists():
        return {}
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {name.removeprefix("export ").strip(): value.strip() for name, _, value in pairs}


def _write(path: Path, url: str, key: str) -> None:
    """Replaces the file at once, readable by its owner alone from its first byte."""
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(f"export JUNGLE_GRID_API={url}\nexport JUNGLE_GRID_API_KEY={key}\n")
        file.flush()
        os.fsync(file.fileno())
    Path(fresh).replace(path)
