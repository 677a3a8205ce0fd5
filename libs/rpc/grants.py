"""The permission of one attempt to write logs and artifacts (architecture 3b.7)."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from libs.clock import Clock, SystemClock
from libs.errors import PermissionDenied
from libs.rpc.token import BadToken, seal, unseal

METADATA_KEY = "jg-attempt-grant-bin"
_KIND = "grant.v1"
_AUDIENCE = "node-data"


@dataclass(frozen=True, slots=True)
class AttemptGrant:
    """Which lease may write for which attempt, until `expires` (Unix seconds)."""

    workspace_id: str
    job_id: str
    attempt: int
    task_index: int
    lease_id: str
    node_id: str
    session_epoch: int
    expires: float


class Grants:
    """Signs and checks attempt grants with one key."""

    def __init__(self, key: bytes, *, clock: Clock | None = None) -> None:
        self._key = key
        self._clock = clock or SystemClock()

    def sign(self, grant: AttemptGrant) -> bytes:
        """The token that a daemon shows in `jg-attempt-grant-bin` or in a message field."""
        return seal(self._key, [_KIND, _AUDIENCE, *map(str, astuple(grant))])

    def verify(self, token: bytes) -> AttemptGrant:
        """The grant in `token`. Raises PermissionDenied with reason GRANT_INVALID when it is
        forged and GRANT_EXPIRED when its time has passed."""
        try:
            kind, audience, *fields = unseal(self._key, token)
        except (BadToken, ValueError):
            kind = ""
        if kind != _KIND or audience != _AUDIENCE:
            raise PermissionDenied("this is not a genuine attempt grant", reason="GRANT_INVALID")
        workspace_id, job_id, attempt, task_index, lease_id, node_id, epoch, expires = fields
        grant = AttemptGrant(
            workspace_id,
            job_id,
            int(attempt),
            int(task_index),
            lease_id,
            node_id,
            int(epoch),
            float(expires),
        )
        if grant.expires <= self._clock.now().timestamp():
            raise PermissionDenied("the attempt grant has expired", reason="GRANT_EXPIRED")
        return grant
