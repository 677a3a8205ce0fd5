"""The pool of workspaces: real mounts for the kinds that need them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from services.node_daemon import loopfs
from services.node_daemon.slots import NoSlotFree, Slot, SlotConfig, Slots
from tests.support.runtimes import MIB, Folders


@pytest.fixture
def folders() -> Iterator[Folders]:
    made = Folders.make()
    yield made
    made.remove()


def config(folders: Folders, **changes: object) -> SlotConfig:
    plain = SlotConfig(
        images=folders.state / "slots", mounts=folders.run / "slots", slots_max=3, ready=1,
        size_bytes=16 * MIB,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def opened(folders: Folders, **changes: object) -> Slots:
    slots = Slots(config(folders, **changes))
    slots.open()
    slots.sweep()
    return slots


def fill(slot: Slot) -> int:
    """Writes until the slot is full; bytes that fitted."""
    written = 0
    try:
        with open(slot.workspace / "big", "wb", buffering=0) as file:
            while written < 200 * MIB:
                written += file.write(bytes(MIB))
    except OSError:
        pass
    return written


@pytest.mark.parametrize("kind", ["loop", "tmpfs"])
def test_a_slot_is_limited_and_clean_for_the_next_job(folders: Folders, kind: str) -> None:
    slots = opened(folders, kinds=(kind,))
    assert (slots.kind, slots.limited) == (kind, True)
    slot = slots.acquire(16 * MIB)
    assert 12 * MIB < fill(slot) <= 16 * MIB
    slots.release(slot)
    again = slots.acquire(16 * MIB)
    assert again.index == slot.index
    assert os.listdir(again.workspace) == []
    assert again.workspace.stat().st_uid == again.uid
    assert again.workspace.stat().st_mode & 0o777 == 0o700
    slots.release(again)
    slots.close()
    assert loopfs.mounted_below(folders.run) == []


def test_other_sizes_are_made_and_keep_to_them(folders: Folders) -> None:
    slots = opened(folders)
    slot = slots.acquire(48 * MIB)
    assert 40 * MIB < fill(slot) <= 48 * MIB
    slots.release(slot)
    small = slots.acquire(8 * MIB)
    assert fill(small) <= 8 * MIB
    slots.close()


def test_each_running_job_has_its_own_user_and_slots_run_out(folders: Folders) -> None:
    slots = opened(folders)
    taken = [slots.acquire(16 * MIB) for _ in range(3)]
    assert len({slot.uid for slot in taken}) == 3
    assert slots.free == 0
    with pytest.raises(NoSlotFree):
        slots.acquire(16 * MIB)
    slots.release(taken[0])
    assert slots.free == 1
    slots.acquire(16 * MIB)


def test_slots_are_taken_by_many_threads_at_once(folders: Folders) -> None:
    slots = opened(folders, slots_max=6)

    def use(_: int) -> set[str]:
        slot = slots.acquire(16 * MIB)
        found = set(os.listdir(slot.workspace))
        (slot.workspace / "mine").write_text("x")
        slots.release(slot)
        return found

    with ThreadPoolExecutor(6) as pool:
        assert set().union(*pool.map(use, range(40))) == set()
    slots.close()


def test_a_new_daemon_wipes_what_nobody_kept_and_leaves_what_is_kept(folders: Folders) -> None:
    first = opened(folders)
    kept, left = first.acquire(16 * MIB), first.acquire(16 * MIB)
    for slot in (kept, left):
        (slot.workspace / "data").write_text("x")
    second = Slots(config(folders))
    second.open()
    assert second.keep(kept.index, kept.size_bytes) == kept
    second.sweep()
    assert (kept.workspace / "data").read_text() == "x"
    assert str(left.workspace) not in loopfs.mounted_below(folders.run) or not os.listdir(
        left.workspace
    )
    second.release(kept)
    assert second.free == 3
    second.close()
    assert loopfs.mounted_below(folders.run) == []


def test_a_directory_is_the_last_resort_and_says_that_it_has_no_limit(folders: Folders) -> None:
    slots = opened(folders, kinds=("directory",))
    assert not slots.limited
    slot = slots.acquire(16 * MIB)
    (slot.workspace / "a").mkdir()
    slots.release(slot)
    assert os.listdir(slots.acquire(16 * MIB).workspace) == []


def test_two_daemons_on_a_machine_do_not_share_users() -> None:
    one = SlotConfig(images=Path("/a/slots"), mounts=Path("/run/a"))
    two = SlotConfig(images=Path("/b/slots"), mounts=Path("/run/b"))
    assert abs(one.first_uid - two.first_uid) >= 256
    assert SlotConfig(images=Path("/a"), mounts=Path("/run/a"), uid_base=5000).first_uid == 5000
