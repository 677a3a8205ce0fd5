"""Slots, complete, lists, and inputs given to jobs and nodes."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from libs import failpoints
from libs.errors import InvalidRequest
from libs.objects import ObjectsUnavailable
from services.artifacts.convert import Cursors
from services.artifacts.domain import Claim, InputState
from services.artifacts.errors import (
    InputLimit,
    InputMismatch,
    InputNotFound,
    InputNotReady,
    InputsUnavailable,
    InputTooLarge,
    InvalidCursor,
    InvalidName,
)
from tests.unit.artifacts import world as worlds
from tests.unit.artifacts.world import BASE, OURS, THEIRS, World

DATA = b"some bytes"


async def test_slot_to_ready(world: World) -> None:
    slot = await world.slot(size=len(DATA))
    assert slot.complete_url == f"{BASE}/v1/job-inputs/{slot.item.input_id}/complete"
    assert slot.request.method == "PUT"
    assert (slot.item.slot_expire_time - world.clock.now()).total_seconds() == 900
    await world.send(slot.item, DATA)
    sha = hashlib.sha256(DATA).hexdigest()
    done = await world.slots.complete_job_input(
        OURS,
        slot.item.input_id,
        Claim(slot.token, "audio.ogg", "audio/ogg", len(DATA), f'"{sha}"'),
    )
    assert done.ready
    assert done.stored is not None
    assert done.stored.sha256 == sha
    assert await world.bytes_of(done.stored.object_key) == DATA
    assert await world.keys("staging/") == []
    assert done.stored.object_key.startswith(f"inputs/{OURS.workspace_id}/{slot.item.input_id}/")


async def test_token_is_kept_as_a_hash_and_shown_once(world: World, tmp_path: Path) -> None:
    slot = await world.slot()
    assert slot.token not in repr(slot)
    await world.database.stop()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("artifacts.db*"))
    assert slot.token.encode() not in stored
    assert hashlib.sha256(slot.token.encode()).digest() in stored


@pytest.mark.parametrize(
    "change",
    [
        {"token": ""},
        {"token": "x" * 32},
        {"filename": "other.ogg"},
        {"content_type": "audio/mpeg"},
        {"size_bytes": len(DATA) + 1},
        {"etag": "0" * 64},
    ],
)
async def test_wrong_claim_is_refused_before_and_after(
    world: World, change: dict[str, object]
) -> None:
    slot = await world.slot()
    await world.send(slot.item, DATA)
    right = {"token": slot.token}
    wrong = Claim(**(right | change))  # type: ignore[arg-type]
    for _ in ("pending", "uploaded"):
        with pytest.raises(InputMismatch) as refused:
            await world.slots.complete_job_input(OURS, slot.item.input_id, wrong)
        assert refused.value.reason == "INVALID_REQUEST"
        assert refused.value.details["field"] in change
        await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))


async def test_token_opens_its_own_slot_only(world: World) -> None:
    first, second = await world.slot(), await world.slot()
    await world.send(second.item, DATA)
    with pytest.raises(InputMismatch):
        await world.slots.complete_job_input(OURS, second.item.input_id, Claim(first.token))


async def test_declared_size_must_have_come(world: World) -> None:
    slot = await world.slot(size=3)
    await world.send(slot.item, DATA)
    with pytest.raises(InputMismatch):
        await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    assert (await world.inputs.list_job_inputs(OURS, "", 0)).items[0].state is InputState.PENDING


async def test_complete_without_bytes_and_of_nothing(world: World) -> None:
    slot = await world.slot()
    with pytest.raises(InputNotReady):
        await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    for tenant, input_id in ((THEIRS, slot.item.input_id), (OURS, "inp_unknown")):
        with pytest.raises(InputNotFound):
            await world.slots.complete_job_input(tenant, input_id, Claim(slot.token))


async def test_slot_dies_at_its_time(world: World) -> None:
    slot = await world.slot()
    await world.send(slot.item, DATA)
    world.clock.advance(900)
    with pytest.raises(InputMismatch, match="expired"):
        await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))


async def test_complete_is_idempotent_for_ever(world: World) -> None:
    slot = await world.slot()
    await world.send(slot.item, DATA)
    claim = Claim(slot.token, size_bytes=len(DATA))
    first = await world.slots.complete_job_input(OURS, slot.item.input_id, claim)
    world.clock.advance(86_400)
    again = await world.slots.complete_job_input(OURS, slot.item.input_id, claim)
    assert again.upload_time == first.upload_time


async def test_put_after_complete_changes_nothing(world: World) -> None:
    slot = await world.slot()
    await world.send(slot.item, DATA)
    done = await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    await world.send(slot.item, b"other")
    again = await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    assert again.stored == done.stored
    assert done.stored is not None
    assert await world.bytes_of(done.stored.object_key) == DATA
    assert await world.sweeper.sweep() == 1
    assert await world.keys("staging/") == []
    assert await world.bytes_of(done.stored.object_key) == DATA


async def test_completes_race_over_changing_bytes(world: World) -> None:
    slot = await world.slot()
    await world.send(slot.item, DATA)

    async def complete() -> object:
        return await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))

    async def put_again() -> None:
        await world.send(slot.item, b"other bytes")

    results = await asyncio.gather(
        *(complete() for _ in range(6)),
        put_again(),
        *(complete() for _ in range(6)),
        return_exceptions=True,
    )
    assert all(
        r is None or not isinstance(r, Exception) or isinstance(r, InputNotReady) for r in results
    )
    done = await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    assert done.stored is not None
    kept = await world.bytes_of(done.stored.object_key)
    assert hashlib.sha256(kept).hexdigest() == done.stored.sha256
    [usage] = await world.rows("input_usage")
    assert (usage.inputs, usage.pending, usage.size_bytes) == (1, 0, len(kept))


async def test_crash_between_copy_and_row_is_repeated(world: World) -> None:
    slot = await world.slot()
    await world.send(slot.item, DATA)
    failpoints.arm("artifacts.input.after_copy=error")
    try:
        with pytest.raises(failpoints.FailpointError):
            await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    finally:
        failpoints.disarm()
    with pytest.raises(InputNotReady):
        await world.inputs.resolve_inputs(OURS, [slot.item.input_id], [])
    done = await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    assert done.ready


@pytest.mark.parametrize("name", ["", "a/b", "..", "a\x00b", "x" * 256])
async def test_bad_name_leaves_nothing(world: World, name: str) -> None:
    with pytest.raises(InvalidName):
        await world.slot(name)
    assert await world.rows("inputs") == []
    assert await world.rows("input_usage") == []


async def test_limits_hold_exactly_under_parallel_calls(tmp_path: Path) -> None:
    world = worlds.make(
        tmp_path,
        inputs_per_workspace_max=20,
        input_bytes_max=100,
        input_bytes_per_workspace_max=150,
    )
    await world.start()
    try:
        with pytest.raises(InputTooLarge):
            await world.slot(size=101)
        made = await asyncio.gather(*(world.slot() for _ in range(50)), return_exceptions=True)
        assert sum(isinstance(slot, InputLimit) for slot in made) == 30
        assert len(await world.rows("inputs")) == 20
        assert (await world.slot(tenant=THEIRS)).token
        assert (await world.slot(size=100, tenant=THEIRS)).token
        with pytest.raises(InputLimit):
            await world.slot(size=51, tenant=THEIRS)
    finally:
        await world.stop()


async def test_unfinished_uploads_have_their_own_limit(tmp_path: Path) -> None:
    world = worlds.make(tmp_path, pending_inputs_per_workspace_max=2)
    await world.start()
    try:
        await world.uploaded()
        await world.slot()
        await world.slot()
        with pytest.raises(InputLimit) as refused:
            await world.slot()
        assert refused.value.retry_after_seconds
    finally:
        await world.stop()


async def test_bytes_that_came_count_against_the_room(tmp_path: Path) -> None:
    world = worlds.make(tmp_path, input_bytes_per_workspace_max=9)
    await world.start()
    try:
        slot = await world.slot()
        await world.send(slot.item, DATA)
        with pytest.raises(InputLimit):
            await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
        [usage] = await world.rows("input_usage")
        assert usage.size_bytes == 0
    finally:
        await world.stop()


async def test_list_is_newest_first_and_pages(world: World) -> None:
    made = [(await world.slot(f"{n}.txt")).item.input_id for n in range(5)]
    await world.slot("theirs.txt", tenant=THEIRS)
    seen: list[str] = []
    after = ""
    while True:
        page = await world.inputs.list_job_inputs(OURS, after, 2)
        seen += [item.input_id for item in page.items]
        after = page.after
        if not after:
            break
    assert seen == made[::-1]


def test_cursor_is_bound_and_signed() -> None:
    cursors = Cursors(b"k" * 32)
    text = cursors.to_text(OURS, "inp_1")
    assert cursors.from_text(OURS, text) == "inp_1"
    assert cursors.from_text(OURS, "0") == cursors.from_text(OURS, "") == ""
    flipped = text[:-3] + ("A" if text[-3] != "A" else "B") + text[-2:]
    for bad in (flipped, text[:-4], "1", "é", "inp_1", "=" * 40, text + "AAAA"):
        with pytest.raises(InvalidCursor):
            cursors.from_text(OURS, bad)
    with pytest.raises(InvalidCursor):
        cursors.from_text(THEIRS, text)
    with pytest.raises(InvalidCursor):
        Cursors(b"l" * 32).from_text(OURS, text)


async def test_resolve_answers_in_the_order_sent(world: World) -> None:
    first, second = await world.uploaded("b"), await world.uploaded("a")
    script = await world.uploaded("run.py", kind="script")
    found = await world.inputs.resolve_inputs(
        OURS, [first.input_id, second.input_id], [script.input_id]
    )
    assert [mount.mount_path for mount in found] == [
        "/workspace/inputs/b",
        "/workspace/inputs/a",
        "/workspace/scripts/run.py",
    ]
    assert await world.inputs.resolve_inputs(OURS, [], []) == []


async def test_resolve_and_grant_refuse_what_is_not_there(world: World) -> None:
    theirs = await world.uploaded(tenant=THEIRS)
    pending = await world.slot()
    for input_id, kind in (
        ("inp_unknown", InputNotFound),
        (theirs.input_id, InputNotFound),
        (pending.item.input_id, InputNotReady),
    ):
        with pytest.raises(kind):
            await world.inputs.resolve_inputs(OURS, [input_id], [])
        with pytest.raises(kind):
            await world.inputs.grant_inputs(OURS, [input_id])
    one = await world.uploaded("same")
    two = await world.uploaded("same")
    with pytest.raises(InvalidRequest):
        await world.inputs.resolve_inputs(OURS, [one.input_id, two.input_id], [])


async def test_grant_signs_a_download_of_the_final_bytes(world: World) -> None:
    item = await world.uploaded("in.txt")
    [grant] = await world.inputs.grant_inputs(OURS, [item.input_id])
    assert item.stored is not None
    assert f"/objects/{item.stored.object_key}?" in grant.url
    assert grant.url not in repr(grant)
    assert grant.mount.stored.sha256 == hashlib.sha256(b"in.txt").hexdigest()


async def test_store_that_is_down_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = await world.slot()
    await world.send(slot.item, DATA)

    async def down(key: str) -> None:
        raise ObjectsUnavailable("full", retry_after_seconds=10.0)

    with monkeypatch.context() as broken:
        broken.setattr(world.objects, "head", down)
        with pytest.raises(InputsUnavailable) as refused:
            await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    assert refused.value.reason == "JOB_INPUTS_UNAVAILABLE"
    assert refused.value.retry_after_seconds == 10.0
    done = await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    assert done.ready


async def test_unfinished_slot_expires_and_goes(world: World) -> None:
    slot = await world.slot(size=5)
    await world.send(slot.item, DATA)
    world.clock.advance(24 * 3600)
    await world.sweeper.sweep()
    [row] = await world.rows("inputs")
    assert row.state == "expired"
    assert await world.keys() == []
    with pytest.raises(InputNotFound):
        await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    [usage] = await world.rows("input_usage")
    assert (usage.inputs, usage.pending, usage.size_bytes) == (0, 0, 0)
    world.clock.advance(24 * 3600)
    await world.sweeper.sweep()
    assert await world.rows("inputs") == []


async def test_input_in_use_is_kept_and_forgotten_one_goes(world: World) -> None:
    used, forgotten = await world.uploaded("used"), await world.uploaded("forgotten")
    for _ in range(3):
        world.clock.advance(20 * 86_400)
        await world.inputs.resolve_inputs(OURS, [used.input_id], [])
        await world.sweeper.sweep()
    assert [row.input_id for row in await world.rows("inputs")] == [used.input_id]
    assert used.stored is not None
    assert await world.keys() == [used.stored.object_key]
    with pytest.raises(InputNotFound):
        await world.inputs.resolve_inputs(OURS, [forgotten.input_id], [])
