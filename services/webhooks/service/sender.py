"""The one dialer for callbacks. It trusts nothing that a tenant chose: the address it connects to
is checked after every look-up, redirects are not followed, proxies of the environment are not used,
and of the answer no more is read than its beginning."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from services.webhooks.config import WebhooksConfig
from services.webhooks.domain.addresses import local_target, loopback, public, refusal
from services.webhooks.domain.delivery import Answer
from services.webhooks.errors import AddressBlocked

_RETRY_AFTER_MAX = 24 * 3600


class HttpSender:
    """Sends over HTTP. Two sessions, so that what may reach localhost can reach nothing else."""

    def __init__(self, config: WebhooksConfig, resolver: AbstractResolver | None = None) -> None:
        self._config = config
        self._resolver = resolver
        self._public: aiohttp.ClientSession | None = None
        self._local: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._public = self._session(public, "of the public Internet")
        self._local = self._session(loopback, "of this machine")

    async def stop(self) -> None:
        for session in (self._public, self._local):
            if session is not None:
                await session.close()
        self._public = self._local = None

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """One POST; see Sender."""
        config = self._config
        why = refusal(url, allow_localhost=config.allow_localhost, ports=config.allowed_ports)
        if why:
            raise AddressBlocked(why)
        session = self._local if local_target(url) else self._public
        if session is None:
            raise RuntimeError("the sender has not been started")
        try:
            return await self._post(session, url, body, headers)
        except aiohttp.InvalidURL:
            # Among others, hosts like 127.1 or 2130706433 that some programs take for addresses.
            raise AddressBlocked("blocked_by_policy: the callback_url has no proper host") from None
        except TimeoutError:
            return Answer(error=f"no answer within {config.total_timeout_seconds:g} s")
        except aiohttp.ClientConnectorDNSError:
            return Answer(error="the host's name has no address")
        except aiohttp.ClientSSLError:
            return Answer(error="the TLS handshake failed")
        except aiohttp.ClientConnectorError as error:
            return Answer(error=f"no connection: {error.os_error.strerror or 'refused'}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The text of the error may hold the URL, which may hold a secret.
            return Answer(error=f"the exchange failed: {type(error).__name__}")

    async def _post(
        self, session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]
    ) -> Answer:
        async with session.post(
            url, data=body, headers=headers, allow_redirects=False, max_redirects=0
        ) as reply:
            await self._drain(reply)
            return _answer(reply)

    async def _drain(self, reply: aiohttp.ClientResponse) -> None:
        """Reads the answer up to the limit, so that a receiver sees its reply taken; what it says
        is not kept."""
        left = self._config.response_bytes_max
        while left > 0:
            chunk = await reply.content.read(left)
            if not chunk:
                return
            left -= len(chunk)

    def _session(self, allowed: Callable[[str], bool], kind: str) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._config.concurrency,
            limit_per_host=self._config.connections_per_host,
            use_dns_cache=False,
            force_close=True,
            resolver=self._resolver,
            # One address after the other: the first that is not allowed ends the try.
            happy_eyeballs_delay=None,
            socket_factory=_guard(allowed, kind),
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._config.total_timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )


def _guard(allowed: Callable[[str], bool], kind: str) -> Callable[[Any], socket.socket]:
    """Makes sockets only for addresses that are allowed. It is asked with the very address that is
    connected to next, so a name that changes its mind between look-ups gains nothing."""

    def make(info: Any) -> socket.socket:
        family, type_, protocol, _, address = info
        if family not in (socket.AF_INET, socket.AF_INET6) or not allowed(str(address[0])):
            raise AddressBlocked(
                f"blocked_by_policy: the callback's host leads to an address that is not {kind}"
            )
        return socket.socket(family=family, type=type_, proto=protocol)

    return make


def _answer(reply: aiohttp.ClientResponse) -> Answer:
    status = reply.status
    if 200 <= status < 300:
        return Answer(status)
    if 300 <= status < 400:
        return Answer(status, f"the receiver answered {status}; redirects are not followed")
    asked = reply.headers.get("Retry-After", "")
    after = min(int(asked), _RETRY_AFTER_MAX) if asked.isascii() and asked.isdigit() else 0
    return Answer(status, f"the receiver answered {status}", float(after))
