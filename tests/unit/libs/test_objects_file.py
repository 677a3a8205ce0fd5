"""What only the file store has: its URLs, its error shape, its disk."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from libs import failpoints
from libs.clock import ManualClock
from libs.objects import SignedRequest, blobs, connect
from libs.objects.file import FileObjects
from libs.objects.ranges import RangeNotSatisfiable, parse_range
from libs.objects.signature import Grant, SignatureExpired, SignatureInvalid, UrlSigner

KEY = b"k" * 32
STAGED = "staging/ws_1/inp_1"
Client = TestClient[web.Request, web.Application]


class Died(Exception):
    """What a test lets a fatal error do instead of ending the process."""


def die(error: BaseException) -> NoReturn:
    raise Died from error


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[FileObjects]:
    found = FileObjects(tmp_path, "", key=KEY, clock=ManualClock(), fatal=die)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def client(objects: FileObjects) -> AsyncIterator[Client]:
    app = web.Application()
    for method, path, handler in objects.http_handlers():
        app.router.add_route(method, path, handler)
    async with TestClient(TestServer(app)) as found:
        yield found


def sign_put(objects: FileObjects, single_use_id: str = "", size_max: int = 1000) -> SignedRequest:
    return objects.sign_put(
        STAGED,
        content_type="text/plain",
        size_max=size_max,
        expires_seconds=900,
        single_use_id=single_use_id,
    )


def sign_get(objects: FileObjects, key: str = "data/a") -> SignedRequest:
    return objects.sign_get(key, filename="a", content_type="", expires_seconds=900)


def assert_error(body: Any, code: str) -> None:
    assert body["code"] == body["error"]["code"] == code
    assert body["message"] == body["error"]["message"] != ""
    assert set(body["error"]) == {"code", "message", "details"}


async def test_errors_have_the_public_shape(
    objects: FileObjects, client: Client, tmp_path: Path
) -> None:
    put = sign_put(objects)
    async with client.put(put.url + "0", data=b"x") as response:
        assert response.status == 403
        assert_error(await response.json(), "SIGNATURE_INVALID")
    async with client.put(put.url, data=b"x" * 1001, headers=put.headers) as response:
        assert response.status == 413
        body = await response.json()
        assert_error(body, "PAYLOAD_TOO_LARGE")
        assert body["error"]["details"] == {"size_bytes_max": 1000}
    async with client.get(sign_get(objects).url) as response:
        assert response.status == 404
        assert_error(await response.json(), "NOT_FOUND")
    async with client.get("/objects/..%2f..%2fetc/passwd") as response:
        assert response.status == 404
    objects.clock.advance(901)  # type: ignore[attr-defined]
    async with client.put(put.url, data=b"x", headers=put.headers) as response:
        assert response.status == 403
        assert_error(await response.json(), "SIGNATURE_EXPIRED")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


async def test_every_part_of_a_url_is_signed(objects: FileObjects, client: Client) -> None:
    url = urlsplit(sign_put(objects, "upload-1").url)
    fields = dict(parse_qsl(url.query))
    assert set(fields) == {"e", "k", "t", "m", "u", "s"}
    changes = [
        {"e": str(int(fields["e"]) + 1)},
        {"k": "00000000"},
        {"t": "text/html"},
        {"m": "1001"},
        {"u": "upload-2"},
        {"s": fields["s"][:-1] + ("A" if fields["s"][-1] != "A" else "B")},
        {"f": "name"},
        {"e": "x"},
        {"m": "x"},
        {"s": "é"},
        {"s": ""},
    ]
    for change in changes:
        query = urlencode({**fields, **change})
        async with client.put(f"{url.path}?{query}", data=b"x") as response:
            assert response.status == 403, change
            assert_error(await response.json(), "SIGNATURE_INVALID")


async def test_an_upload_is_made_once_and_may_be_repeated(
    objects: FileObjects, client: Client
) -> None:
    signed = sign_put(objects, "upload-1")
    for data, status in ((b"one", 200), (b"one", 200), (b"two", 409)):
        async with client.put(signed.url, data=data, headers=signed.headers) as response:
            assert response.status == status
    await objects.delete(STAGED)
    async with client.put(signed.url, data=b"one", headers=signed.headers) as response:
        assert response.status == 409
        assert_error(await response.json(), "CONFLICT")
    assert await objects.head(STAGED) is None


async def test_a_download_cannot_run_in_our_origin(objects: FileObjects, client: Client) -> None:
    await objects.put("data/a", b"<script>", "text/html")
    async with client.get(sign_get(objects).url) as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"].startswith("sandbox")
        assert response.headers["Content-Disposition"].startswith("attachment")
        etag = response.headers["ETag"]
    async with client.head(sign_get(objects).url) as response:
        assert (response.status, response.content_length) == (200, 8)
    async with client.get(sign_get(objects).url, headers={"If-None-Match": etag}) as response:
        assert response.status == 304
    stale = {"Range": "bytes=0-0", "If-Range": '"other"'}
    async with client.get(sign_get(objects).url, headers=stale) as response:
        assert (response.status, await response.read()) == (200, b"<script>")


async def test_a_client_that_stops_half_way_leaves_nothing(
    objects: FileObjects, client: Client, tmp_path: Path
) -> None:
    signed = sign_put(objects)
    url = urlsplit(signed.url)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
    writer.write(f"{head}Content-Type: text/plain\r\n\r\nhalf".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    del reader
    async with asyncio.timeout(5):
        while list((tmp_path / "tmp").iterdir()):  # noqa: ASYNC110 - the server has no event
            await asyncio.sleep(0.001)
    assert await objects.head(STAGED) is None


async def test_no_signature_reaches_a_log(
    objects: FileObjects, client: Client, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG, "libs")
    signed = sign_put(objects)
    signature = dict(parse_qsl(urlsplit(signed.url).query))["s"]
    for url in (signed.url, signed.url + "0"):
        async with client.put(url, data=b"x", headers=signed.headers) as response:
            assert signature not in await response.text()
    shown = capfd.readouterr()
    assert signature not in shown.out + shown.err
    assert KEY.decode() not in repr(objects.signer)


async def test_a_full_disk_is_said_and_passes(
    objects: FileObjects, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    signed = sign_put(objects)
    with monkeypatch.context() as patch:
        patch.setattr(blobs.os, "fsync", full)  # type: ignore[attr-defined]
        async with client.put(signed.url, data=b"x", headers=signed.headers) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            assert_error(await response.json(), "ARTIFACTS_UNAVAILABLE")
    assert not list((tmp_path / "tmp").iterdir())
    async with client.put(signed.url, data=b"x", headers=signed.headers) as response:
        assert response.status == 200


async def test_a_failed_fsync_is_the_end(
    objects: FileObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(blobs.os, "fsync", broken)  # type: ignore[attr-defined]
    with pytest.raises(Died):
        await objects.put("data/a", b"x", "text/plain")


async def test_bytes_are_synced_before_their_name_and_their_name_before_the_answer(
    objects: FileObjects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await objects.put("data/first", b"", "text/plain")
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def spy_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        steps.append(f"fsync {path.relative_to(tmp_path).parts[0]}")
        fsync(descriptor)

    def spy_link(source: Path, target: Path) -> None:
        steps.append(f"link {Path(target).relative_to(tmp_path).parts[0]}")
        link(source, target)

    monkeypatch.setattr(blobs.os, "fsync", spy_fsync)  # type: ignore[attr-defined]
    monkeypatch.setattr(blobs.os, "link", spy_link)  # type: ignore[attr-defined]
    await objects.put("data/a", b"x", "text/plain")
    assert steps == ["fsync tmp", "link objects", "fsync objects"]


async def test_a_crash_after_the_rename_has_stored_the_whole(objects: FileObjects) -> None:
    failpoints.arm("objects.after_rename=error")
    with pytest.raises(failpoints.FailpointError):
        await objects.put("data/a", b"x", "text/plain")
    failpoints.disarm()
    assert (await objects.put("data/a", b"x", "text/plain")).size == 1


async def test_leftovers_of_crashes_go_at_the_next_start(
    objects: FileObjects, tmp_path: Path
) -> None:
    for name, age in (("old", 25 * 3600), ("new", 60)):
        path = tmp_path / "tmp" / name
        path.write_bytes(b"half")
        times = path.stat().st_mtime - age
        os.utime(path, (times, times))
    await objects.start()
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["new"]


async def test_a_damaged_file_is_not_served(objects: FileObjects, tmp_path: Path) -> None:
    await objects.put("data/a", b"hello", "text/plain")
    path = tmp_path / "objects" / "data" / "a~"
    for damaged in (b"", b"hello", path.read_bytes()[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match="damaged"):
            await objects.head("data/a")


async def test_a_key_may_also_be_a_folder(objects: FileObjects) -> None:
    await objects.put("data/a", b"1", "text/plain")
    await objects.put("data/a/b", b"2", "text/plain")
    assert [info.key for info in await objects.list("")] == ["data/a", "data/a/b"]
    await objects.delete("data/a")
    assert [info.key for info in await objects.list("")] == ["data/a/b"]


TEXT = st.text(max_size=20)


@given(
    st.builds(Grant, st.sampled_from(["GET", "PUT"]), TEXT, st.integers(1, 2**40), TEXT),
    st.builds(Grant, st.sampled_from(["GET", "PUT"]), TEXT, st.integers(1, 2**40), TEXT),
)
def test_two_grants_never_share_a_signature(one: Grant, other: Grant) -> None:
    signer = UrlSigner(KEY)
    assert (signer.query(one) == signer.query(other)) == (one == other)
    query = dict(parse_qsl(signer.query(one), keep_blank_values=True))
    assert signer.grant(one.method, one.key, query, now=one.expires - 1) == one
    with pytest.raises(SignatureExpired):
        signer.grant(one.method, one.key, query, now=one.expires)
    with pytest.raises(SignatureInvalid):
        UrlSigner(b"x" * 32).grant(one.method, one.key, query, now=0)


@given(st.text(max_size=30) | st.from_regex(r"bytes=\d{0,4}-\d{0,4}"), st.integers(0, 2000))
def test_a_range_is_inside_or_refused(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    if found is not None:
        assert 0 <= found[0] <= found[1] < size


def test_urls_of_no_store_are_refused() -> None:
    for url in ("s3://bucket", "file:///", "file:////x", "file:////x?base=http://a"):
        with pytest.raises(ValueError, match="objects url"):
            connect(url, key=KEY, clock=ManualClock())
    with pytest.raises(ValueError, match="32 bytes"):
        connect("file:////x?base_url=http://a", key=b"short", clock=ManualClock())
