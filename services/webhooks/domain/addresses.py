"""Which addresses a callback may reach. The table is our own: what Python's ipaddress calls global
differs from release to release, and misses addresses that lead back to this machine."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from urllib.parse import urlsplit

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
DEFAULT_PORTS = {"https": 443, "http": 80}

_DENIED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, cloud metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Only unicast that has been given out; within it, what carries or stands for something else.
_ALLOWED_V6 = IPv6Network("2000::/3")
_DENIED_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: holds an IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_LOOPBACK_V4 = IPv4Network("127.0.0.0/8")
_LOOPBACK_V6 = IPv6Address("::1")


def public(address: str) -> bool:
    """True for an address of the public Internet."""
    found = _parsed(address)
    if isinstance(found, IPv4Address):
        return not any(found in network for network in _DENIED_V4)
    if found is None:
        return False
    if found.ipv4_mapped is not None:
        return public(str(found.ipv4_mapped))
    return found in _ALLOWED_V6 and not any(found in network for network in _DENIED_V6)


def loopback(address: str) -> bool:
    """True for an address of this very machine."""
    found = _parsed(address)
    if isinstance(found, IPv4Address):
        return found in _LOOPBACK_V4
    return found == _LOOPBACK_V6


def local_target(url: str) -> bool:
    """The URL names localhost itself; a name that merely leads there does not count."""
    return (urlsplit(url).hostname or "") in LOCAL_HOSTS


def refusal(url: str, *, allow_localhost: bool, ports: Iterable[int]) -> str:
    """Why policy forbids this URL before anything is looked up; empty when it does not."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return "the callback_url is not a URL"
    if local_target(url):
        if allow_localhost and parts.scheme in DEFAULT_PORTS:
            return ""
        return "blocked_by_policy: callbacks to localhost are not delivered by this grid"
    if parts.scheme != "https":
        return "blocked_by_policy: callbacks are delivered over https only"
    if port not in ports:
        return f"blocked_by_policy: callbacks to port {port} are not delivered"
    return ""


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        # A zone (fe80::1%eth0) only ever names a link-local address.
        return ip_address(address.partition("%")[0])
    except ValueError:
        return None
