"""gRPC as all services use it: one server, one channel, one list of interceptors.

Code below a door imports `libs.rpc.context` for the caller, the tenant and the time left.
"""

from libs.rpc.authenticate import InternalAuthenticator, NodeAuthenticator
from libs.rpc.client import as_bearer, as_service, connect, open_connection
from libs.rpc.grants import AttemptGrant, Grants
from libs.rpc.interceptors import default_interceptors
from libs.rpc.principal import Principal, Signer, Verifier
from libs.rpc.server import AddressInUse, Server

__all__ = [
    "AddressInUse",
    "AttemptGrant",
    "Grants",
    "InternalAuthenticator",
    "NodeAuthenticator",
    "Principal",
    "Server",
    "Signer",
    "Verifier",
    "as_bearer",
    "as_service",
    "connect",
    "default_interceptors",
    "open_connection",
]
