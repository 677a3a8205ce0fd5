"""Becoming a node, and proving to be one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from libs import api_key
from libs.db import Tx, retry_stale
from libs.errors import InvalidRequest
from services.nodes.domain import EnrolmentToken, Inventory, Node, NodeState, TokenDraft
from services.nodes.errors import CredentialRefused, EnrolmentRefused
from services.nodes.service.deps import SCOPE, Deps

# Compared when no row is found, so that an unknown prefix takes as long as a wrong secret.
_NOBODY = bytes(32)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A new node's identity; `credential` is nowhere else."""

    node_id: str
    credential: str = field(repr=False)


class Enrolment:
    """Tokens and credentials. Both are stored as hashes."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def create_enrolment_token(self, draft: TokenDraft) -> tuple[str, datetime]:
        """A one-use token and its end."""
        config = self._deps.config
        life = draft.life_seconds or config.enrolment_token_seconds
        if not 0 < life <= config.enrolment_token_seconds_max:
            raise InvalidRequest(
                f"life must be over 0 and at most {config.enrolment_token_seconds_max:g} s"
            )
        if draft.gpu_price_micros_per_hour < 0 or draft.cpu_price_micros_per_hour < 0:
            raise InvalidRequest("prices must not be negative")
        if not draft.provider_id:
            raise InvalidRequest("provider_id is needed: the workspace that lends the node")

        def work(tx: Tx) -> tuple[str, datetime]:
            minted = api_key.mint(api_key.ENROLMENT_TOKEN)
            token = EnrolmentToken(
                prefix=minted.prefix,
                digest=minted.digest,
                provider_id=draft.provider_id,
                provider_name=draft.provider_name,
                pool=draft.pool,
                gpu_price_micros_per_hour=draft.gpu_price_micros_per_hour,
                cpu_price_micros_per_hour=draft.cpu_price_micros_per_hour,
                create_time=tx.now(),
                expire_time=tx.now() + timedelta(seconds=life),
            )
            self._deps.repository.add_token(tx, SCOPE, token)
            return minted.text, token.expire_time

        return await retry_stale(lambda: self._deps.database.write(work))

    async def enrol(self, text: str, name: str, region: str, inventory: Inventory) -> Enrolled:
        """Trades a token for an identity. The token is used up in the same commit."""
        if not api_key.check_key_format(text, api_key.ENROLMENT_TOKEN):
            raise EnrolmentRefused
        prefix = api_key.prefix_of(text)

        def work(tx: Tx) -> Enrolled:
            token = self._deps.repository.token(tx, SCOPE, prefix)
            genuine = api_key.matches(text, _NOBODY if token is None else token.digest)
            if token is None or not genuine or not token.good(tx.now()):
                raise EnrolmentRefused
            minted = api_key.mint(api_key.NODE_CREDENTIAL)
            node_id = self._deps.ids.new("node")
            node = _node(token, node_id, minted, tx.now(), (name or node_id, region, inventory))
            self._deps.repository.use_token(tx, SCOPE, prefix, node_id)
            self._deps.repository.add_node(tx, SCOPE, node)
            tx.emit(self._deps.node_event(node, tx.now()))
            return Enrolled(node_id, minted.text)

        return await retry_stale(lambda: self._deps.database.write(work))

    async def authenticate(self, credential: str) -> str:
        """The node id behind a credential; CredentialRefused, always alike, otherwise."""
        if not api_key.check_key_format(credential, api_key.NODE_CREDENTIAL):
            raise CredentialRefused
        prefix = api_key.prefix_of(credential)
        node = await self._deps.database.read(
            lambda tx: self._deps.repository.node_by_prefix(tx, SCOPE, prefix)
        )
        genuine = api_key.matches(credential, _NOBODY if node is None else node.digest)
        if node is None or not genuine or node.state is NodeState.REVOKED:
            raise CredentialRefused
        return node.node_id


def _node(
    token: EnrolmentToken,
    node_id: str,
    minted: api_key.Minted,
    now: datetime,
    told: tuple[str, str, Inventory],
) -> Node:
    name, region, inventory = told
    return Node(
        node_id=node_id,
        prefix=minted.prefix,
        digest=minted.digest,
        provider_id=token.provider_id,
        provider_name=token.provider_name,
        name=name,
        region=region,
        pool=token.pool,
        gpu_price_micros_per_hour=token.gpu_price_micros_per_hour,
        cpu_price_micros_per_hour=token.cpu_price_micros_per_hour,
        inventory=inventory,
        create_time=now,
    )
