"""HTTP as a program of a user sends it: nothing is interpreted, everything can be looked at."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` is the JSON, or None where there was none."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    body: Any

    @property
    def code(self) -> str:
        """The contract's error code; "" for an answer that is no error."""
        error = self.body.get("error", {}) if isinstance(self.body, dict) else {}
        return str(error.get("code", ""))

    @property
    def message(self) -> str:
        """The error's sentence."""
        return str(self.body["error"]["message"])


@dataclass(frozen=True, slots=True)
class Client:
    """One key, or none."""

    http: aiohttp.ClientSession
    base: str
    key: str = ""

    def with_key(self, key: str) -> Client:
        """The same with another key."""
        return Client(self.http, self.base, key)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Answer:
        """One request, with `body` as JSON or `raw` as it is."""
        sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        sent |= dict(headers or {})
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.http.request(
            method,
            self.base + path,
            data=raw,
            headers=sent,
            params=params,
            skip_auto_headers=["Content-Type"],
        ) as reply:
            return await answer(reply)

    async def get(self, path: str, **params: Any) -> Answer:
        """GET with a query."""
        return await self.send("GET", path, params={name: str(v) for name, v in params.items()})

    async def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        """POST with a JSON body; keywords are headers, `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("POST", path, {} if body is None else body, headers=named)

    async def put_url(self, url: str, data: bytes, headers: Mapping[str, str]) -> Answer:
        """PUT to a signed URL; the key does not travel there."""
        return await self._signed("PUT", url, data, headers)

    async def get_url(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET of a signed URL."""
        return await self._signed("GET", url, None, headers or {})

    async def _signed(
        self, method: str, url: str, data: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        async with self.http.request(
            method, URL(url, encoded=True), data=data, headers=headers
        ) as reply:
            return await answer(reply)

    async def stream(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[dict[str, str]]:
        """The events of a text/event-stream, as their fields, until it ends."""
        sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        async with self.http.get(self.base + path, headers=sent) as reply:
            assert reply.status == 200, await reply.text()
            assert reply.headers["Content-Type"].startswith("text/event-stream")
            event: dict[str, str] = {}
            async for line in reply.content:
                name, _, value = line.decode().rstrip("\r\n").partition(":")
                if name:
                    event[name] = value.removeprefix(" ")
                elif "data" in event:
                    yield event
                    event = {}


async def answer(reply: aiohttp.ClientResponse) -> Answer:
    """The whole of a response."""
    data = await reply.read()
    body = None
    if reply.content_type == "application/json":
        body = json.loads(data)
    return Answer(reply.status, reply.headers, data, body)
