"""Identifiers sort by creation, cross to UUIDs and back, and refuse what is not one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.clock import ManualClock
from libs.errors import InvalidRequest
from libs.ids import ALPHABET, IdSource, is_ulid, parse, ulid_to_uuid, uuid_to_ulid


def test_ids_of_one_millisecond_are_distinct_and_sorted() -> None:
    ids = IdSource(ManualClock())
    made = [ids.new("job") for _ in range(1000)]
    assert made == sorted(set(made))


def test_ids_go_on_rising_when_the_clock_steps_back() -> None:
    class Stepping(ManualClock):
        steps: ClassVar = [5, 1, 3]

        def now(self):  # type: ignore[no-untyped-def]
            clock = ManualClock()
            clock.advance(self.steps.pop(0))
            return clock.now()

    ids = IdSource(Stepping())
    made = [ids.ulid() for _ in range(3)]
    assert made == sorted(made)


def test_the_first_ten_letters_are_the_time() -> None:
    clock = ManualClock()
    first = IdSource(clock).ulid()
    clock.advance(0.001)
    assert IdSource(clock).ulid()[:10] > first[:10]


def test_ids_are_unique_across_threads() -> None:
    ids = IdSource(ManualClock())
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: ids.ulid(), range(4000)))
    assert len(set(made)) == 4000


@given(st.uuids())
def test_ulid_and_uuid_are_one_to_one(uuid: UUID) -> None:
    ulid = uuid_to_ulid(str(uuid))
    assert is_ulid(ulid)
    assert ulid_to_uuid(ulid) == str(uuid)
    assert ulid_to_uuid(f"job_{ulid}") == str(uuid)


@given(st.text(alphabet=ALPHABET, min_size=25, max_size=25), st.sampled_from("01234567"))
def test_every_ulid_comes_back_from_its_uuid(tail: str, head: str) -> None:
    assert uuid_to_ulid(ulid_to_uuid(head + tail)) == head + tail


def test_parse_gives_back_what_it_accepts() -> None:
    made = IdSource(ManualClock()).new("job")
    assert parse("job", made) == made


@pytest.mark.parametrize(
    "text",
    ["", "job_", "job", "att_01ARZ3NDEKTSV4RRFFQ69G5FAV", "job_01ARZ3NDEKTSV4RRFFQ69G5FA",
     "job_01arz3ndektsv4rrffq69g5fav", "job_81ARZ3NDEKTSV4RRFFQ69G5FAV",
     "job_01ARZ3NDEKTSV4RRFFQ69G5FAU", "job_01ARZ3NDEKTSV4RRFFQ69G5FAV\n", "job_" + "0" * 5000],
)  # fmt: skip
def test_parse_refuses_all_else(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse("job", text)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("text", ["", "x", "z" * 36])
def test_conversion_refuses_what_is_not_an_id(text: str) -> None:
    with pytest.raises(InvalidRequest):
        uuid_to_ulid(text)
    with pytest.raises(InvalidRequest):
        ulid_to_uuid(text)


def test_secrets_carry_the_bits_that_were_asked_for() -> None:
    ids = IdSource(ManualClock())
    assert len(ids.secret(16)) == 22
    assert ids.secret() != ids.secret()
