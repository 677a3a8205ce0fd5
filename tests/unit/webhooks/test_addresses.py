"""What a callback may reach: a table of ways back into the grid, each refused."""

from __future__ import annotations

import pytest

from services.webhooks.domain.addresses import local_target, loopback, public, refusal

HOSTILE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:2::1",
    "2001:20::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "fc00::1", "fd12::1", "fe80::1",
    "fe80::1%eth0", "fec0::1", "ff02::1", "5f00::1", "", "localhost", "1.2.3", "0x7f.1",
]  # fmt: skip
FINE = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "::ffff:8.8.8.8", "2606:4700::1111", "2a00:1450::1"]


@pytest.mark.parametrize("address", HOSTILE)
def test_ways_back_are_not_public(address: str) -> None:
    assert not public(address)


@pytest.mark.parametrize("address", FINE)
def test_the_internet_is_public(address: str) -> None:
    assert public(address)
    assert not loopback(address)


@pytest.mark.parametrize(
    ("address", "is_local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", False),
     ("10.0.0.1", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_loopback(address: str, is_local: bool) -> None:
    assert loopback(address) == is_local


@pytest.mark.parametrize(
    ("url", "allow", "refused"),
    [
        ("https://a.example/x", False, False),
        ("https://a.example:8443/x", False, False),
        ("https://a.example:6379/x", False, True),
        ("http://a.example/x", True, True),
        ("gopher://localhost/x", True, True),
        ("http://localhost:9/x", True, False),
        ("http://localhost:9/x", False, True),
        ("http://[::1]:9/x", True, False),
        ("https://127.0.0.1/x", False, True),
        ("https://a.example:99999/x", True, True),
    ],
)
def test_policy_before_a_look_up(url: str, allow: bool, refused: bool) -> None:
    assert bool(refusal(url, allow_localhost=allow, ports=(443, 8443))) == refused


def test_only_the_name_itself_is_local() -> None:
    assert local_target("http://LOCALHOST:8080/x")
    assert not local_target("http://localhost.a.example/x")
    assert not local_target("http://127.0.0.2/x")
