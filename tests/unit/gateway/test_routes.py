"""Requests through the whole gateway: routing, statuses, headers, scopes."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from libs.errors import (
    Code,
    Conflict,
    DeadlineExceeded,
    GridError,
    InvalidRequest,
    Unavailable,
    Unprocessable,
)
from tests.unit.gateway import zoo
from tests.unit.gateway.backend import World


def animal(**fields: Any) -> Any:
    return lambda request: zoo.message("Animal")(**fields)


async def test_a_get_fills_path_and_query(world: World) -> None:
    world.zoo.replies["GetAnimal"] = animal(animal_id="a b/c")
    key = world.identity.add("zoo:read")
    status, body, headers = await world.ask("GET", "/v1/animals/a%20b%2Fc?cage=7", key=key)
    assert status == 200
    assert body["animal_id"] == body["id"] == "a b/c"
    assert world.zoo.requests[0].animal_id == "a b/c"
    assert world.zoo.requests[0].cage == 7
    assert headers["X-Request-Id"].startswith("req_")
    assert headers["Cache-Control"] == "no-store"
    assert "aiohttp" not in headers["Server"].lower()


async def test_the_callers_key_reaches_the_service_as_a_principal(world: World) -> None:
    world.zoo.replies["GetAnimal"] = animal()
    key = world.identity.add("zoo:read", "zoo:write", key_id="key_7")
    await world.ask("GET", "/v1/animals/a", key=key)
    caller = world.zoo.callers[0]
    assert (caller.kind, caller.subject, caller.workspace_id) == ("user", "key_7", "ws_1")
    assert caller.scopes == {"zoo:read", "zoo:write"}
    assert caller.actor == "gateway"


async def test_additional_bindings_lead_to_the_same_method(world: World) -> None:
    world.zoo.replies["GetAnimal"] = animal(animal_id="x")
    key = world.identity.add("zoo:read")
    status, _, _ = await world.ask("GET", "/v1/cages/3/animals/x", key=key)
    assert status == 200
    assert world.zoo.requests[0].cage == 3
    status, body, _ = await world.ask("GET", "/v1/cages/three/animals/x", key=key)
    assert status == 400
    assert body["error"]["message"] == "cage: expected a whole number"


async def test_a_literal_path_wins_over_a_parameter(world: World) -> None:
    world.zoo.replies["ListNames"] = lambda _: zoo.message("ListAnimalsResponse")(names=["x", "y"])
    key = world.identity.add("zoo:read")
    status, body, _ = await world.ask("GET", "/v1/animals/names", key=key)
    assert (status, body) == (200, ["x", "y"])


async def test_a_post_takes_body_header_and_query(world: World) -> None:
    world.zoo.replies["AddAnimal"] = lambda request: zoo.message("Animal")(
        name=request.draft.name, key_seen=request.idempotency_key
    )
    key = world.identity.add("zoo:write")
    status, body, _ = await world.ask(
        "POST",
        "/v1/animals?dry_run=true",
        key=key,
        json={"name": "Tom", "idempotency_key": "from the body"},
        headers={"Idempotency-Key": "k1"},
    )
    assert (status, body["name"], body["key_seen"]) == (201, "Tom", "k1")
    assert world.zoo.requests[0].dry_run is True


async def test_a_missing_scope_is_named(world: World) -> None:
    key = world.identity.add("other")
    status, body, _ = await world.ask("GET", "/v1/animals/a", key=key)
    assert status == 403
    assert body["code"] == body["error"]["code"] == "FORBIDDEN"
    assert "zoo:read, zoo:write" in body["message"]
    assert body["error"]["details"] == {"required_scopes": ["zoo:read", "zoo:write"]}


async def test_public_routes_need_no_key(world: World) -> None:
    world.zoo.replies["ListAnimals"] = lambda _: zoo.message("ListAnimalsResponse")()
    status, body, _ = await world.ask("GET", "/v1/animals")
    assert (status, body) == (200, {"animals": [], "next_cursor": None, "names": []})
    assert world.zoo.callers[0].kind == "service"


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("limit=x", "limit: expected a whole number"),
        ("limit=1.5", "limit: expected a whole number"),
        ("limit=%D9%A1", "limit: expected a whole number"),
        ("limit=99999999999", "limit: expected a whole number from"),
        ("limit=1&limit=2", "limit: sent more than once"),
        ("kinds=fish", "kinds: expected one of cat, big-dog, dog; got 'fish'"),
        ("ratio=nan", "ratio: expected a number"),
        ("ratio=1_0", "ratio: expected a number"),
        ("cursor=%ff", "the query is not UTF-8"),
    ],
)
async def test_a_bad_query_value_is_named(world: World, query: str, where: str) -> None:
    status, body, _ = await world.ask("GET", f"/v1/animals?{query}")
    assert status == 400
    assert body["code"] == "INVALID_REQUEST"
    assert where in body["message"]
    assert not world.zoo.requests


async def test_query_values_and_lists(world: World) -> None:
    world.zoo.replies["ListAnimals"] = lambda _: zoo.message("ListAnimalsResponse")()
    await world.ask(
        "GET", "/v1/animals?kinds=cat&kinds=dog&cursor=42&ratio=-1e3&extra=1&password=x"
    )
    request = world.zoo.requests[0]
    assert (list(request.kinds), request.cursor, request.ratio) == ([1, 2], "42", -1000.0)
    assert request.password == ""


async def test_unknown_paths_and_methods(world: World) -> None:
    status, body, _ = await world.ask("GET", "/v1/nothing")
    assert (status, body["code"]) == (404, "NOT_FOUND")
    status, body, headers = await world.ask("DELETE", "/v1/animals")
    assert (status, body["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    status, body, headers = await world.ask("OPTIONS", "/v1/animals")
    assert (status, body, headers["Allow"]) == (204, b"", "GET, HEAD, OPTIONS, POST")
    assert "Access-Control-Allow-Origin" not in headers


async def test_head_is_get_without_the_body(world: World) -> None:
    world.zoo.replies["ListAnimals"] = lambda _: zoo.message("ListAnimalsResponse")()
    status, body, headers = await world.ask("HEAD", "/v1/animals")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "malformed JSON"),
        (b'{"name": NaN}', "malformed JSON"),
        (b'{"name": "\xff"}', "malformed JSON"),
        (b'{"name": "\\ud800"}', "malformed JSON"),
        (b"[" * 2000, "malformed JSON"),
        (b'{"count": 1' + b"0" * 3000 + b"}", "malformed JSON"),
        (b"[1]", "the request body: expected an object, got a list"),
        (b'"text"', "expected an object, got a string"),
        (b'{"name": 5}', "name: expected a string, got a number"),
        (b'{"environment": {"FOO": 1}}', "environment.FOO: expected a string, got a number"),
        (b'{"tags": ["a", null]}', "tags[1]: expected a string, got null"),
        (b'{"toys": ["t", {"count": "x"}]}', "toys[1].count: expected a whole number, got a str"),
        (b'{"cage": "a", "meadow": "b"}', "meadow: cannot be sent together with 'cage'"),
        (b'{"count": 2147483648}', "count: expected a whole number from"),
        (b'{"count": 1.5}', "count: expected a whole number"),
        (b'{"count": true}', "count: expected a whole number, got true or false"),
    ],
)
async def test_a_bad_body_says_where(world: World, body: bytes, message: str) -> None:
    key = world.identity.add("zoo:write")
    status, answer, _ = await world.ask(
        "POST", "/v1/animals", key=key, data=body, headers={"Content-Type": "application/json"}
    )
    assert status == 400
    assert answer["code"] == "INVALID_REQUEST"
    assert message in answer["message"]
    assert not world.zoo.requests


async def test_deep_json_is_refused(world: World) -> None:
    key = world.identity.add("zoo:write")
    deep = '{"children":[' * 80 + "{}" + "]}" * 80
    status, body, _ = await world.ask("POST", "/v1/animals", key=key, data=deep)
    assert status == 415  # aiohttp calls a string text/plain
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    status, body, _ = await world.ask("POST", "/v1/animals", key=key, data=deep, headers=headers)
    assert (status, body["message"][-28:]) == (400, "nested more than 64 levels deep"[-28:])
    free = '{"metadata":' + '{"a":' * 100 + "1" + "}" * 101
    status, body, _ = await world.ask("POST", "/v1/animals", key=key, data=free, headers=headers)
    assert (status, body["code"]) == (400, "INVALID_REQUEST")


async def test_an_empty_body_is_an_empty_object(world: World) -> None:
    world.zoo.replies["AddAnimal"] = animal()
    key = world.identity.add("zoo:write")
    status, _, _ = await world.ask("POST", "/v1/animals", key=key)
    assert status == 201
    assert world.zoo.requests[0].HasField("draft")


async def test_sizes_are_limited_before_and_after_decompression(world: World) -> None:
    key = world.identity.add("zoo:write")
    big = json.dumps({"name": "x" * 5000}).encode()
    status, body, _ = await world.ask(
        "POST", "/v1/animals", key=key, data=big, headers={"Content-Type": "application/json"}
    )
    assert (status, body["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert body["error"]["details"] == {"limit_bytes": 4096}
    packed = gzip.compress(json.dumps({"name": "x" * 3_000_000}).encode())
    zipped = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert len(packed) < 4096
    status, body, _ = await world.ask("POST", "/v1/animals", key=key, data=packed, headers=zipped)
    assert (status, body["code"]) == (413, "PAYLOAD_TOO_LARGE")
    world.zoo.replies["AddAnimal"] = lambda request: zoo.message("Animal")(name=request.draft.name)
    small = gzip.compress(b'{"name": "Tom"}')
    status, body, _ = await world.ask("POST", "/v1/animals", key=key, data=small, headers=zipped)
    assert (status, body["name"]) == (201, "Tom")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "zstd"},
    ],
)
async def test_other_formats_are_refused(world: World, headers: dict[str, str]) -> None:
    key = world.identity.add("zoo:write")
    status, body, _ = await world.ask(
        "POST", "/v1/animals", key=key, data=b'{"name":"x"}', headers=headers
    )
    assert (status, body["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_the_path_wins_over_the_body(world: World) -> None:
    world.zoo.replies["Echo"] = lambda request: request
    key = world.identity.add()
    status, body, _ = await world.ask("POST", "/v1/echo/path", key=key, json={"word": "body"})
    assert (status, body["word"]) == (200, "path")


class Teapot(Unprocessable):
    reason = "JOB_SCREENING_BLOCKED"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Conflict("it is gone"), 409, "CONFLICT"),
        (Teapot("no", details={"screening": {"can_submit": False}}), 422, "JOB_SCREENING_BLOCKED"),
        (Unavailable("later", retry_after_seconds=1.2), 503, "UNAVAILABLE"),
    ],
)
async def test_errors_of_services_keep_their_words(
    world: World, error: GridError, status: int, code: str
) -> None:
    def fail(_: Any) -> Any:
        raise error

    world.zoo.replies["GetAnimal"] = fail
    key = world.identity.add("zoo:read")
    found, body, headers = await world.ask("GET", "/v1/animals/a", key=key)
    assert (found, body["code"]) == (status, code)
    assert body["error"] == {"code": code, "message": error.message, "details": error.details}
    assert headers.get("Retry-After") == ("2" if error.retry_after_seconds else None)


async def test_broken_rules_are_named_as_the_client_sent_them(world: World) -> None:
    def refuse(_: Any) -> Any:
        fields = ("draft.name", "idempotency_key")
        raise InvalidRequest(
            "draft.name: is too short",
            details={"violations": [{"field": field, "message": "no"} for field in fields]},
        )

    world.zoo.replies["AddAnimal"] = refuse
    key = world.identity.add("zoo:write")
    status, body, _ = await world.ask("POST", "/v1/animals", key=key, json={})
    assert (status, body["message"]) == (400, "name: is too short")
    fields = [each["field"] for each in body["error"]["details"]["violations"]]
    assert fields == ["name", "Idempotency-Key"]


async def test_a_client_that_waits_is_told_to_go_on(world: World) -> None:
    world.zoo.replies["AddAnimal"] = lambda request: zoo.message("Animal")(name=request.draft.name)
    key = world.identity.add("zoo:write")
    status, body, _ = await world.ask(
        "POST", "/v1/animals", key=key, json={"name": "Tom"}, expect100=True
    )
    assert (status, body["name"]) == (201, "Tom")


async def test_a_call_that_takes_too_long(world: World) -> None:
    def fail(_: Any) -> Any:
        raise DeadlineExceeded("x")

    world.zoo.replies["GetAnimal"] = fail
    key = world.identity.add("zoo:read")
    status, body, _ = await world.ask("GET", "/v1/animals/a", key=key)
    assert (status, body["code"]) == (504, "DEADLINE_EXCEEDED")
    assert "may have taken effect" in body["message"]


async def test_an_unforeseen_error_shows_an_id_only(world: World) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("the password is hunter2")

    world.zoo.replies["GetAnimal"] = fail
    key = world.identity.add("zoo:read")
    status, body, _ = await world.ask("GET", "/v1/animals/a", key=key)
    assert (status, body["code"]) == (500, "INTERNAL_ERROR")
    assert "hunter2" not in json.dumps(body)
    assert body["error"]["details"]["error_id"].startswith("err_")


async def test_a_reply_that_cannot_be_shown_is_our_error(world: World) -> None:
    async def drop(_: Any) -> Any:
        await world.server.stop()

    world.zoo.replies["GetAnimal"] = drop
    key = world.identity.add("zoo:read")
    status, body, _ = await world.ask("GET", "/v1/animals/a", key=key)
    assert status in (499, 503)
    assert "unix:" not in body["message"]


async def test_request_ids_are_kept_when_harmless(world: World) -> None:
    _, _, headers = await world.ask("GET", "/healthz", headers={"X-Request-Id": "abc-1"})
    assert headers["X-Request-Id"] == "abc-1"
    _, _, headers = await world.ask("GET", "/healthz", headers={"X-Request-Id": "a b"})
    assert headers["X-Request-Id"].startswith("req_")


def test_every_code_has_a_status() -> None:
    from gateway.errors import STATUS_BY_CODE

    assert set(STATUS_BY_CODE) == set(Code)
