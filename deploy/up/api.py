"""The public API as the quickstart uses it: plain HTTP, nothing that a user could not do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import aiohttp


class ApiError(Exception):
    """The grid refused a request; the text is its own message with code and status."""


class Api:
    """A client of one grid with one key. Use as an async context manager."""

    def __init__(self, base_url: str, key: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=90),
        )
        # Signed URLs carry their own right; the key must not travel to them.
        self._plain = aiohttp.ClientSession()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()
        await self._plain.close()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer to one request. Raises ApiError for any status from 400."""
        async with self._session.request(method, self.base_url + path, json=body) as reply:
            answer = await reply.json()
            if reply.status >= 400:
                error = answer.get("error", {})
                raise ApiError(f"{error.get('code')} ({reply.status}): {error.get('message')}")
            return answer

    async def put(self, url: str, data: bytes, headers: dict[str, str]) -> None:
        """Sends bytes to a signed URL."""
        async with self._plain.put(url, data=data, headers=headers) as reply:
            if reply.status >= 400:
                raise ApiError(f"upload refused ({reply.status}): {await reply.text()}")

    async def get(self, url: str) -> bytes:
        """Bytes of a signed URL."""
        async with self._plain.get(url) as reply:
            if reply.status >= 400:
                raise ApiError(f"download refused ({reply.status}): {await reply.text()}")
            return await reply.read()

    async def events(self, path: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(event name, data) of a text/event-stream until the server ends it."""
        async with self._session.get(self.base_url + path) as reply:
            if reply.status >= 400:
                raise ApiError(f"stream refused ({reply.status}): {await reply.text()}")
            name, data = "message", ""
            async for raw in reply.content:
                text = raw.decode("utf-8").rstrip("\r\n")
                if text.startswith("event:"):
                    name = text[6:].strip()
                elif text.startswith("data:"):
                    data += text[5:].lstrip()
                elif not text and data:
                    yield name, json.loads(data)
                    name, data = "message", ""
