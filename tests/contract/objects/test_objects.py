"""What a store of objects promises to the service that owns them and to holders of signed URLs."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta

import aiohttp
import pytest

from libs.clock import ManualClock
from libs.objects import (
    ObjectChanged,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    Objects,
    SignedRequest,
)

STAGED, FINAL = "staging/ws_1/inp_1", "inputs/ws_1/inp_1/train.py"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sign_put(
    objects: Objects, key: str = STAGED, content_type: str = "", size_max: int = 1000
) -> SignedRequest:
    return objects.sign_put(
        key, content_type=content_type, size_max=size_max, expires_seconds=900, single_use_id=""
    )


def sign_get(objects: Objects, key: str, filename: str = "a.txt") -> SignedRequest:
    return objects.sign_get(key, filename=filename, content_type="text/plain", expires_seconds=900)


async def send(
    http: aiohttp.ClientSession, signed: SignedRequest, data: bytes | None = None
) -> tuple[int, bytes]:
    async with http.request(
        signed.method, signed.url, data=data, headers=signed.headers
    ) as response:
        return response.status, await response.read()


async def read(objects: Objects, key: str) -> bytes:
    return b"".join([piece async for piece in objects.read(key)])


async def test_what_was_put_is_described_and_read_back(objects: Objects) -> None:
    for data in (b"", b"hello", os.urandom(700_000)):
        key = f"data/{len(data)}"
        info = await objects.put(key, data, "text/x-python")
        found = await objects.head(key)
        assert found == info == ObjectInfo(len(data), info.etag, sha(data), "text/x-python", key)
        assert await read(objects, key) == data


async def test_a_stream_can_be_put(objects: Objects) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for n in range(100):
            yield b"%d," % n

    info = await objects.put("data/stream", pieces(), "text/plain")
    assert await read(objects, "data/stream") == b"".join(b"%d," % n for n in range(100))
    assert info.size == 290


async def test_a_stream_that_breaks_leaves_nothing(objects: Objects) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await objects.put("data/half", pieces(), "text/plain")
    assert await objects.head("data/half") is None
    assert await objects.list("") == []


async def test_what_is_missing_is_missing(objects: Objects) -> None:
    assert await objects.head("data/none") is None
    with pytest.raises(ObjectMissing):
        await read(objects, "data/none")
    with pytest.raises(ObjectMissing):
        await objects.copy("staging/none", FINAL, if_match_etag="x")
    await objects.delete("data/none")


async def test_the_way_of_an_upload(objects: Objects, http: aiohttp.ClientSession) -> None:
    signed = sign_put(objects, content_type="text/x-python")
    assert (signed.method, dict(signed.headers)) == ("PUT", {"Content-Type": "text/x-python"})
    assert (await send(http, signed, b"print(1)"))[0] == 200
    staged = await objects.head(STAGED)
    assert staged is not None
    assert (staged.size, staged.sha256, staged.content_type) == (
        8,
        sha(b"print(1)"),
        "text/x-python",
    )
    info = await objects.copy(STAGED, FINAL, if_match_etag=staged.etag)
    assert (info.key, info.sha256, info.size) == (FINAL, staged.sha256, 8)
    await objects.delete(STAGED)

    # The old URL is still good for a staging key that nobody reads any more.
    await send(http, signed, b"print(2)")
    assert await read(objects, FINAL) == b"print(1)"


async def test_a_copy_is_guarded_and_can_be_repeated(objects: Objects) -> None:
    first = await objects.put(STAGED, b"one", "text/plain")
    second = await objects.put(STAGED, b"two", "text/plain")
    with pytest.raises(ObjectChanged):
        await objects.copy(STAGED, FINAL, if_match_etag=first.etag)
    assert await objects.head(FINAL) is None
    for _ in range(2):
        await objects.copy(STAGED, FINAL, if_match_etag=second.etag)
    third = await objects.put(STAGED, b"three", "text/plain")
    with pytest.raises(ObjectExists):
        await objects.copy(STAGED, FINAL, if_match_etag=third.etag)
    assert await read(objects, FINAL) == b"two"


async def test_a_final_key_never_changes(objects: Objects) -> None:
    await objects.put(FINAL, b"one", "text/plain")
    await objects.put(FINAL, b"one", "text/plain")
    with pytest.raises(ObjectExists):
        await objects.put(FINAL, b"two", "text/plain")
    assert await read(objects, FINAL) == b"one"
    with pytest.raises(ValueError, match="staging"):
        sign_put(objects, key=FINAL)
    with pytest.raises(ValueError, match="final"):
        await objects.copy(FINAL, STAGED, if_match_etag="x")


async def test_an_upload_has_a_size_and_a_type(
    objects: Objects, http: aiohttp.ClientSession
) -> None:
    signed = sign_put(objects, content_type="text/plain", size_max=10)
    assert (await send(http, signed, b"x" * 11))[0] == 413
    async with http.put(signed.url, data=b"x", headers={"Content-Type": "text/html"}) as response:
        assert response.status == 403
    assert await objects.head(STAGED) is None
    assert (await send(http, signed, b"x" * 10))[0] == 200


async def test_an_upload_without_length_is_counted(
    objects: Objects, http: aiohttp.ClientSession
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    signed = sign_put(objects, size_max=50_000)
    async with http.put(signed.url, data=pieces(), headers=signed.headers) as response:
        assert response.status == 413
    assert await objects.head(STAGED) is None


async def test_a_url_is_good_for_its_method_and_key_only(
    objects: Objects, http: aiohttp.ClientSession
) -> None:
    await objects.put(FINAL, b"secret", "text/plain")
    get, put = sign_get(objects, "data/other"), sign_put(objects)
    for method, url in (
        ("GET", get.url.replace("data/other", FINAL)),
        ("GET", put.url.replace(STAGED, FINAL)),
        ("PUT", put.url.replace(STAGED, FINAL)),
        ("PUT", put.url.replace(STAGED, "staging/ws_2/inp_1")),
        ("GET", put.url),
        ("GET", get.url.split("?")[0]),
    ):
        async with http.request(method, url, data=b"x" if method == "PUT" else None) as response:
            assert response.status == 403
            assert b"secret" not in await response.read()
    assert await read(objects, FINAL) == b"secret"


async def test_a_url_ends_with_its_time(
    objects: Objects, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    await objects.put(FINAL, b"data", "text/plain")
    signed = sign_get(objects, FINAL)
    assert signed.expires_time == clock.now() + timedelta(seconds=900)
    clock.advance(899)
    assert (await send(http, signed))[0] == 200
    clock.advance(1)
    assert (await send(http, signed))[0] == 403


async def test_a_download_is_an_attachment(objects: Objects, http: aiohttp.ClientSession) -> None:
    data = os.urandom(300_000)
    await objects.put(FINAL, data, "text/html")
    signed = sign_get(objects, FINAL, filename='mod"el é\n.bin')
    async with http.get(signed.url) as response:
        assert await response.read() == data
        assert response.headers["Content-Type"] == "text/plain"
        assert response.content_length == 300_000
        disposition = response.headers["Content-Disposition"]
    assert disposition.startswith("attachment")
    assert "mod%22el%20%C3%A9%0A.bin" in disposition


@pytest.mark.parametrize(
    ("wanted", "status", "first", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=990-", 206, 990, 1000),
        ("bytes=-10", 206, 990, 1000),
        ("bytes=990-5000", 206, 990, 1000),
        ("bytes=-5000", 206, 0, 1000),
    ],
)
async def test_a_range(
    objects: Objects, http: aiohttp.ClientSession, wanted: str, status: int, first: int, end: int
) -> None:
    data = os.urandom(1000)
    await objects.put(FINAL, data, "text/plain")
    async with http.get(sign_get(objects, FINAL).url, headers={"Range": wanted}) as response:
        assert response.status == status
        assert await response.read() == data[first:end]
        assert response.headers["Content-Range"] == f"bytes {first}-{end - 1}/1000"


async def test_a_range_behind_the_end(objects: Objects, http: aiohttp.ClientSession) -> None:
    await objects.put(FINAL, b"0123456789", "text/plain")
    url = sign_get(objects, FINAL).url
    async with http.get(url, headers={"Range": "bytes=10-"}) as response:
        assert response.status == 416


async def test_keys_are_listed_in_order_and_pages(objects: Objects) -> None:
    keys = sorted(f"list/{a}/{b}" for a in ("x", "xy", "z") for b in range(5))
    for key in reversed([*keys, "other/1"]):
        await objects.put(key, key.encode(), "text/plain")
    assert [info.key for info in await objects.list("list/")] == keys
    assert [info.key for info in await objects.list("list/x")] == keys[:10]
    first = await objects.list("list/", limit=4)
    rest = await objects.list("list/", after=first[-1].key)
    assert [info.key for info in [*first, *rest]] == keys
    assert all(info.sha256 == sha(info.key.encode()) for info in rest)
    assert await objects.list("none/") == []


async def test_a_reader_reads_on_while_the_object_goes(objects: Objects) -> None:
    data = os.urandom(600_000)
    await objects.put("data/big", data, "text/plain")
    reader = objects.read("data/big")
    got = [await anext(reader)]
    await objects.delete("data/big")
    got += [piece async for piece in reader]
    assert b"".join(got) == data
    assert await objects.head("data/big") is None


async def test_writers_of_one_final_key_agree(objects: Objects) -> None:
    results = await asyncio.gather(
        *(objects.put(FINAL, b"%d" % (n % 2), "text/plain") for n in range(10)),
        return_exceptions=True,
    )
    kept = await read(objects, FINAL)
    for n, result in enumerate(results):
        assert isinstance(result, ObjectInfo if kept == b"%d" % (n % 2) else ObjectExists)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/..", "a/./b", "a b", "é", "a~"])
async def test_keys_are_plain(objects: Objects, key: str) -> None:
    with pytest.raises(ValueError, match="not an object key"):
        await objects.head(key)
    with pytest.raises(ValueError, match="not an object key"):
        sign_get(objects, key)


def test_a_signed_url_is_not_shown_by_accident(objects: Objects) -> None:
    signed = sign_put(objects)
    assert signed.url not in repr(signed)


async def test_those_who_delete_do_not_disturb_those_who_put(objects: Objects) -> None:
    async def work(number: int) -> None:
        for turn in range(30):
            staged, final = (
                f"staging/n{number}.{turn}",
                f"artifacts/job{number % 3}/{number}.{turn}",
            )
            info = await objects.put(staged, b"x", "")
            await objects.copy(staged, final, if_match_etag=info.etag)
            await objects.delete(staged)
            await objects.delete(final)

    await asyncio.gather(*(work(number) for number in range(12)))
    assert await objects.list("") == []
