"""Secrets at rest: only the right key and the right row open them."""

from __future__ import annotations

import pytest

from libs.sealing import SealBroken, Sealer

KEY = b"k" * 32
PLACE = {"table": "job_secrets", "workspace_id": "ws_1", "row_id": "job_1|environment"}
PLAIN = b'{"TOKEN":"canary"}'


def test_what_is_sealed_opens_in_its_place() -> None:
    sealed = Sealer(KEY).seal(PLAIN, **PLACE)
    assert Sealer(KEY).open(sealed, **PLACE) == PLAIN
    assert b"canary" not in sealed


def test_the_same_value_is_never_sealed_alike() -> None:
    sealer = Sealer(KEY)
    assert len({sealer.seal(PLAIN, **PLACE) for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("field", "value"),
    [("table", "deliveries"), ("workspace_id", "ws_2"), ("row_id", "job_2|environment")],
)
def test_another_place_does_not_open_it(field: str, value: str) -> None:
    sealed = Sealer(KEY).seal(PLAIN, **PLACE)
    with pytest.raises(SealBroken):
        Sealer(KEY).open(sealed, **(PLACE | {field: value}))


def test_another_key_does_not_open_it() -> None:
    sealed = Sealer(KEY).seal(PLAIN, **PLACE)
    for other in (Sealer(b"x" * 32), Sealer(KEY, key_id=2)):
        with pytest.raises(SealBroken):
            other.open(sealed, **PLACE)


def test_no_changed_byte_goes_unseen() -> None:
    sealed = Sealer(KEY).seal(PLAIN, **PLACE)
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(SealBroken):
            Sealer(KEY).open(bytes(changed), **PLACE)
    for short in (b"", sealed[:10], sealed[:-1]):
        with pytest.raises(SealBroken):
            Sealer(KEY).open(short, **PLACE)


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32"):
        Sealer(b"short")
