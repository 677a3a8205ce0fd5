"""Accounts, workspaces, keys and revocations, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from libs import api_key
from libs.clock import ManualClock
from libs.db import Database, connect
from libs.errors import GridError, InvalidRequest
from libs.ids import IdSource
from libs.tenancy import Tenant
from services.identity import convert, tables
from services.identity.config import IdentityConfig
from services.identity.domain import MOVES, ApiKeyState
from services.identity.errors import KeyNotFound, KeyRefused, UnknownScope, WorkspaceNotFound
from services.identity.repository import IdentityRepository
from services.identity.service import IdentityService, NewKey

ROOT = Path(__file__).parents[3]
READ = ("jobs:read",)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    found = connect(
        f"sqlite:///{tmp_path}/identity.db",
        metadata=tables.metadata,
        migrations=ROOT / "services/identity/migrations",
        clock=clock,
        service="identity",
    )
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def service(database: Database, clock: ManualClock) -> IdentityService:
    return IdentityService(
        database=database,
        repository=IdentityRepository(),
        ids=IdSource(clock),
        clock=clock,
        config=IdentityConfig(),
        known_scopes=convert.known_scopes(),
    )


async def workspace(
    service: IdentityService, email: str = "ann@example.test"
) -> tuple[str, Tenant]:
    account, _ = await service.create_account(email, "Ann")
    made, _ = await service.create_workspace(account.account_id, "main")
    return account.account_id, Tenant(made.workspace_id)


async def new_key(
    service: IdentityService, email: str = "ann@example.test"
) -> tuple[Tenant, NewKey]:
    account_id, tenant = await workspace(service, email)
    made = await service.create_api_key(
        tenant, account_id, name="ci", scopes=READ, expire_time=None
    )
    return tenant, made


async def test_a_key_says_who_it_is(service: IdentityService) -> None:
    tenant, made = await new_key(service)
    key = await service.resolve_key(made.text)
    assert (key.workspace_id, key.key_id, key.scopes) == (tenant.workspace_id, made.key_id, READ)


async def test_unknown_wrong_revoked_and_expired_keys_answer_alike(
    service: IdentityService, clock: ManualClock
) -> None:
    tenant, revoked = await new_key(service)
    await service.revoke_api_key(tenant, revoked.key_id)
    account_id, _ = await workspace(service)
    expired = await service.create_api_key(
        tenant,
        account_id,
        name="short",
        scopes=READ,
        expire_time=clock.now() + timedelta(seconds=60),
    )
    await service.resolve_key(expired.text)
    clock.advance(60)
    texts = [api_key.mint().text, revoked.text, expired.text, "nonsense", expired.text[:-1]]
    answers = set()
    for text in texts:
        with pytest.raises(KeyRefused) as refusal:
            await service.resolve_key(text)
        answers.add((refusal.value.code, refusal.value.reason, refusal.value.message))
    assert len(answers) == 1


async def test_a_right_prefix_with_a_wrong_secret_is_refused(service: IdentityService) -> None:
    _, made = await new_key(service)
    forged = _with_id(made.text)
    assert api_key.check_key_format(forged) and forged != made.text
    with pytest.raises(KeyRefused):
        await service.resolve_key(forged)


def _with_id(text: str) -> str:
    letters = iter(text[3:9] + api_key.mint().text[9:41])
    code = {letter: number for number, letter in enumerate(api_key.ALPHABET)}
    return api_key.mint(entropy=lambda count: bytes(code[next(letters)] for _ in range(count))).text


async def test_accounts_and_workspaces_are_made_once(service: IdentityService) -> None:
    first = [await service.create_account("Bo@Example.test ", "Bo")]
    again = await asyncio.gather(
        *(service.create_account("bo@example.test", "B") for _ in range(9))
    )
    assert {account.account_id for account, _ in [*first, *again]} == {first[0][0].account_id}
    assert [existed for _, existed in again] == [True] * 9
    account_id = first[0][0].account_id
    spaces = await asyncio.gather(*(service.create_workspace(account_id, "w") for _ in range(9)))
    assert len({made.workspace_id for made, _ in spaces}) == 1
    assert [existed for _, existed in spaces].count(False) == 1


@pytest.mark.parametrize("email", ["", "a", "@b", "a@", "a b@c", "a@b@c", "x" * 255 + "@y", "a@\n"])
async def test_bad_addresses_are_refused(service: IdentityService, email: str) -> None:
    with pytest.raises(InvalidRequest):
        await service.create_account(email, "Ann")


async def test_bad_wishes_for_a_key_leave_none(
    service: IdentityService, clock: ManualClock
) -> None:
    account_id, tenant = await workspace(service)
    other, _ = await service.create_account("eve@example.test", "Eve")

    async def ask(account: str, scopes: tuple[str, ...], seconds: float | None = None) -> None:
        end = None if seconds is None else clock.now() + timedelta(seconds=seconds)
        await service.create_api_key(tenant, account, name="k", scopes=scopes, expire_time=end)

    with pytest.raises(UnknownScope):
        await ask(account_id, ("jobs:read", "jobs:everything"))
    with pytest.raises(InvalidRequest):
        await ask(account_id, ())
    with pytest.raises(InvalidRequest):
        await ask(account_id, READ, seconds=0)
    with pytest.raises(WorkspaceNotFound):
        await ask(other.account_id, READ)
    assert await service.list_api_keys(tenant) == []


async def test_only_the_own_workspace_lists_and_revokes(service: IdentityService) -> None:
    mine, made = await new_key(service)
    theirs, _ = await new_key(service, "eve@example.test")
    with pytest.raises(KeyNotFound):
        await service.revoke_api_key(theirs, made.key_id)
    assert [key.key_id for key in await service.list_api_keys(mine)] == [made.key_id]
    await service.resolve_key(made.text)


async def test_the_store_has_no_secret(service: IdentityService, tmp_path: Path) -> None:
    _, made = await new_key(service)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("identity.db*"))
    assert made.text.encode() not in stored
    assert made.text[9:41].encode() not in stored
    assert made.text[:9].encode() in stored


async def test_a_revocation_is_told_at_once_and_once(
    service: IdentityService, clock: ManualClock
) -> None:
    tenant, made = await new_key(service)
    watch = service.watch_revocations(0)
    first = await anext(watch)
    assert (first.key_ids, first.position) == ((), 0)
    waiting = asyncio.ensure_future(anext(watch))
    await _asleep(clock)
    await service.revoke_api_key(tenant, made.key_id)
    assert (await waiting).key_ids == (made.key_id,)
    await service.revoke_api_key(tenant, made.key_id)
    beat = asyncio.ensure_future(anext(watch))
    await _asleep(clock)
    clock.advance(1)
    assert ((await beat).key_ids, (await beat).position) == ((), 1)
    await watch.aclose()  # type: ignore[attr-defined]


async def test_a_beat_comes_each_second_and_another_replica_is_seen(
    service: IdentityService, database: Database, clock: ManualClock
) -> None:
    other = IdentityService(
        database=database,
        repository=IdentityRepository(),
        ids=IdSource(clock),
        clock=clock,
        config=IdentityConfig(),
        known_scopes=convert.known_scopes(),
    )
    tenant, made = await new_key(service)
    watch = service.watch_revocations(0)
    await anext(watch)
    await other.revoke_api_key(tenant, made.key_id)
    told: list[str] = []
    for _ in range(4):
        beat = asyncio.ensure_future(anext(watch))
        await _asleep(clock)
        clock.advance(1)
        told += (await asyncio.wait_for(beat, 5)).key_ids
    assert told == [made.key_id]


async def test_a_gateway_goes_on_from_its_position(service: IdentityService) -> None:
    keys = []
    for _ in range(3):
        tenant, made = await new_key(service)
        keys.append(made.key_id)
        await service.revoke_api_key(tenant, made.key_id)
    found = await anext(service.watch_revocations(1))
    assert (list(found.key_ids), found.position) == (keys[1:], 3)


async def _asleep(clock: ManualClock) -> None:
    while clock.sleepers == 0:  # noqa: ASYNC110 - the clock stands still, a turn is all it takes
        await asyncio.sleep(0)


def test_every_pair_of_states() -> None:
    allowed = {(source, target) for source in MOVES for target in MOVES[source]}
    assert allowed == {(ApiKeyState.ACTIVE, ApiKeyState.REVOKED)}
    assert set(MOVES) == set(ApiKeyState)


def test_scopes_cover_every_public_route() -> None:
    shown = {file.DESCRIPTOR.name for file in convert.PUBLIC_FILES}
    routed = {
        path.relative_to(ROOT / "protos").as_posix()
        for path in (ROOT / "protos").rglob("*.proto")
        if "option (junglegrid.api.v1.route)" in path.read_text()
    }
    assert routed == shown
    assert {"jobs:read", "logs:read", "billing:read", "registry:write"} <= convert.known_scopes()


async def test_errors_are_grid_errors(service: IdentityService) -> None:
    with pytest.raises(GridError):
        await service.create_workspace("acc_unknown", "x")
