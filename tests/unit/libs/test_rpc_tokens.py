"""Signed principals and attempt grants: genuine, in time, for this audience; or nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.clock import ManualClock
from libs.errors import PermissionDenied, Unauthenticated
from libs.rpc.grants import AttemptGrant, Grants
from libs.rpc.principal import Principal, Signer, Verifier
from libs.rpc.token import BadToken, from_text, seal, to_text, unseal

KEY = b"k" * 32
START = datetime(2026, 1, 1, tzinfo=UTC)
USER = Principal("user", "key_1", "ws_1", frozenset({"jobs:read", "jobs:write"}), actor="gateway")
GRANT = AttemptGrant("ws_1", "job_1", 2, 0, "lease_1", "node_1", 7, START.timestamp() + 60)


@given(st.lists(st.text(max_size=50), max_size=8))
def test_sealed_fields_come_back(fields: list[str]) -> None:
    token = seal(KEY, fields)
    assert unseal(KEY, token) == fields
    assert unseal(KEY, from_text(to_text(token))) == fields


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(position: int, change: int) -> None:
    token = bytearray(seal(KEY, ["a", "bc"]))
    token[position % len(token)] ^= change
    with pytest.raises(BadToken):
        unseal(KEY, bytes(token))


@given(st.binary(max_size=100))
def test_random_bytes_are_no_token(junk: bytes) -> None:
    with pytest.raises(BadToken):
        unseal(KEY, junk)


def test_a_field_border_cannot_be_moved() -> None:
    assert seal(KEY, ["ab", "c"]) != seal(KEY, ["a", "bc"])


def test_a_principal_comes_back_with_the_signers_time_to_live() -> None:
    clock = ManualClock(START)
    found = Verifier(KEY, clock=clock).verify(Signer(KEY, clock=clock).sign(USER))
    assert replace(found, expires=0.0) == USER
    assert found.expires == START.timestamp() + 60


def test_a_verified_token_still_expires() -> None:
    clock = ManualClock(START)
    token = Signer(KEY, clock=clock).sign(USER)
    verifier = Verifier(KEY, clock=clock)
    for _ in range(2):
        verifier.verify(token)
    clock.advance(60)
    with pytest.raises(Unauthenticated, match="expired"):
        verifier.verify(token)


def test_a_signed_token_is_reused_for_half_its_life() -> None:
    clock = ManualClock(START)
    signer = Signer(KEY, clock=clock)
    first = signer.sign(USER)
    clock.advance(29)
    assert signer.sign(USER) == first
    clock.advance(2)
    assert signer.sign(USER) != first


def test_an_explicit_expiry_is_kept() -> None:
    clock = ManualClock(START)
    token = Signer(KEY, clock=clock).sign(replace(USER, expires=START.timestamp() + 5))
    clock.advance(5)
    with pytest.raises(Unauthenticated):
        Verifier(KEY, clock=clock).verify(token)


def test_audiences_and_kinds_of_token_do_not_mix() -> None:
    clock = ManualClock(START)
    node = Signer(KEY, audience="node-data", clock=clock).sign(Principal("node", "node_1"))
    with pytest.raises(PermissionDenied):
        Verifier(KEY, clock=clock).verify(node)
    with pytest.raises(Unauthenticated):
        Verifier(KEY, clock=clock).verify(Grants(KEY, clock=clock).sign(GRANT))
    with pytest.raises(PermissionDenied):
        Grants(KEY, clock=clock).verify(node)


def test_a_grant_comes_back_whole_until_it_expires() -> None:
    clock = ManualClock(START)
    grants = Grants(KEY, clock=clock)
    token = grants.sign(GRANT)
    assert grants.verify(token) == GRANT
    clock.advance(60)
    with pytest.raises(PermissionDenied) as caught:
        grants.verify(token)
    assert caught.value.reason == "GRANT_EXPIRED"


def test_a_grant_of_another_key_is_invalid() -> None:
    clock = ManualClock(START)
    with pytest.raises(PermissionDenied) as caught:
        Grants(b"y" * 32, clock=clock).verify(Grants(KEY, clock=clock).sign(GRANT))
    assert caught.value.reason == "GRANT_INVALID"
