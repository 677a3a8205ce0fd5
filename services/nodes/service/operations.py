"""What operators and other replicas ask for."""

from __future__ import annotations

from functools import partial

from libs.db import Tx, retry_stale
from libs.telemetry import logger
from services.nodes.domain import Node, NodeState
from services.nodes.errors import NodeNotFound
from services.nodes.service.deps import SCOPE, Deps
from services.nodes.service.leases import close_leases

_log = logger("nodes")
_PAGE_SIZE = 100


class Operations:
    """Looking at nodes, draining and revoking them."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def list_nodes(
        self, provider_id: str, after: str, limit: int
    ) -> tuple[list[tuple[Node, int]], str]:
        """Nodes by id with the number of their open leases, and where the next page begins."""
        size = min(limit if limit > 0 else _PAGE_SIZE, self._deps.config.page_size_max)
        found = await self._deps.database.read(
            lambda tx: self._deps.repository.nodes(tx, SCOPE, provider_id, after, size + 1)
        )
        page = found[:size]
        return page, page[-1][0].node_id if len(found) > size else ""

    async def drain_node(self, node_id: str, *, draining: bool) -> NodeState:
        """Stops new work for a node, or lets it come again; the state after it."""

        def work(tx: Tx) -> NodeState:
            node = self._found(tx, node_id)
            after = node.drained(draining)
            if after is not node:
                self._deps.change_node(tx, node, after)
            return after.state

        return await retry_stale(lambda: self._deps.database.write(work))

    async def revoke_node(self, node_id: str) -> None:
        """Voids the credential, ends the stream and closes the leases. Idempotent.

        The leases are not kept for the time the node would have to kill its jobs: a node is
        revoked because it is not trusted to, and the user's next attempt should not wait for it.
        """

        def work(tx: Tx) -> None:
            node = self._found(tx, node_id)
            after = node.revoked()
            if after is None:
                return
            self._deps.change_node(tx, node, after)
            close_leases(self._deps, tx, node, "the node was revoked")
            tx.after_commit(partial(self._deps.sessions.fence, node_id, final=True))

        await retry_stale(lambda: self._deps.database.write(work))
        _log.warning("node revoked", node_id=node_id)

    def forward_wake(self, node_id: str) -> bool:
        """Wakes the node's session; False when this replica does not hold it."""
        return self._deps.sessions.wake(node_id)

    def _found(self, tx: Tx, node_id: str) -> Node:
        node = self._deps.repository.node(tx, SCOPE, node_id)
        if node is None:
            raise NodeNotFound("no such node")
        return node
