"""Deliveries on a real database: once, again, never, and byte for byte the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from junglegrid.webhooks.v1 import webhook_internal_service_pb2 as pb

from libs import failpoints
from libs.db.drift import schema_drift
from libs.errors import NotFound, StaleWrite, Unavailable
from libs.tenancy import SystemScope
from services.webhooks import loops, tables
from services.webhooks.domain import delivery as moves
from services.webhooks.domain.delivery import MOVES, Answer, Delivery, DeliveryStatus
from services.webhooks.domain.payload import signature
from services.webhooks.errors import AddressBlocked, IllegalMove
from services.webhooks.repository import WebhooksRepository
from services.webhooks.rpc import WebhookInternalService
from tests.unit.webhooks.world import FACTS, NOW, WORKSPACE, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    await found.database.start()
    yield found
    await found.database.stop()


async def test_an_end_is_told_once(world: World) -> None:
    await world.finish()
    await world.finish()
    assert await world.round() == 1
    assert await world.round() == 0
    ((url, body, headers),) = world.sender.sent
    assert url == FACTS.url
    assert headers["Authorization"] == "Bearer canary-token"
    assert headers["X-JungleGrid-Callback-Version"] == "v1"
    assert headers["X-JungleGrid-Callback-Timestamp"] == str(int(world.clock.now().timestamp()))
    assert headers["X-JungleGrid-Job-ID"] == "job_1"
    assert headers["X-JungleGrid-Job-Status"] == "completed"
    assert "X-JungleGrid-Callback-Signature" not in headers
    assert json.loads(body) == {
        "version": "v1",
        "job_id": "job_1",
        "status": "completed",
        "status_reason": "",
        "occurred_at": "2026-01-01T00:03:00Z",
        "created_at": "2026-01-01T00:00:00Z",
        "queued_at": "2026-01-01T00:00:01Z",
        "started_at": None,
        "finished_at": "2026-01-01T00:03:00Z",
        "image": "image",
        "command": "python",
        "args": ["script.py"],
        "exit_code": 0,
        "timed_out": False,
        "assigned_node_id": "node_1",
        "provider_name": "acme",
        "provider_node_id": "node_1",
        "correlation_data": {"request_id": "req_123"},
        "correlation": {"request_id": "req_123"},
    }
    done = await world.only()
    assert (done.status, done.attempts, done.last_status) == (DeliveryStatus.DELIVERED, 1, 200)
    assert done.token is None


async def test_a_job_without_a_callback_has_no_delivery(world: World) -> None:
    await world.finish(callback=False)
    assert await world.service.list_deliveries(WORKSPACE, "job_1") == []


async def test_every_try_sends_the_same_bytes(world: World) -> None:
    world.sender.answers = [Answer(503, "busy"), Answer(error="reset"), Answer(204)]
    await world.finish()
    await world.round()
    world.jobs.facts = replace(FACTS, status_reason="changed since")
    for _ in range(2):
        await world.until_due()
        assert await world.round() == 1
    assert len({body for _, body, _ in world.sender.sent}) == 1
    assert world.jobs.asked == 1
    done = await world.only()
    assert (done.status, done.attempts) == (DeliveryStatus.DELIVERED, 3)


async def test_pauses_double_and_are_drawn(world: World) -> None:
    world.sender.answers = [Answer(500, "no")]
    world.draw = 1.0
    await world.finish()
    pauses = []
    for _ in range(world.config.attempts_max - 1):
        await world.round()
        pauses.append(await world.until_due())
    assert pauses == [30, 60, 120, 240, 480, 960, 1920]
    await world.round()
    done = await world.only()
    assert (done.status, done.attempts) == (DeliveryStatus.EXHAUSTED, 8)
    assert done.last_error == "no"
    world.draw = 0.0
    assert moves.Backoff(8, 30, 60).pause(9, 0.5) == 30


async def test_the_receiver_may_ask_for_a_longer_pause(world: World) -> None:
    world.sender.answers = [Answer(429, "slow down", 100.0)]
    await world.finish()
    await world.round()
    assert await world.until_due() == 100


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 301, 308])
async def test_answers_that_forbid_another_try(world: World, status: int) -> None:
    world.sender.answers = [Answer(status, "no")]
    await world.finish()
    await world.round()
    assert (await world.only()).status is DeliveryStatus.EXHAUSTED
    assert await world.round() == 0


async def test_a_blocked_address_is_recorded_and_not_tried_again(world: World) -> None:
    world.sender.answers = [AddressBlocked("blocked_by_policy: no")]
    await world.finish()
    await world.round()
    done = await world.only()
    assert (done.status, done.last_error) == (DeliveryStatus.BLOCKED, "blocked_by_policy: no")


async def test_jobs_away_does_not_count_as_a_try(world: World) -> None:
    world.jobs.error = Unavailable("away")
    await world.finish()
    await world.round()
    waiting = await world.only()
    assert (waiting.attempts, waiting.status) == (0, DeliveryStatus.PENDING)
    world.jobs.error = None
    await world.until_due()
    await world.round()
    assert (await world.only()).attempts == 1


async def test_a_job_that_is_gone_ends_it(world: World) -> None:
    world.jobs.error = NotFound("gone")
    await world.finish()
    await world.round()
    assert (await world.only()).status is DeliveryStatus.EXHAUSTED
    assert not world.sender.sent


async def test_a_try_whose_process_died_comes_again(world: World) -> None:
    await world.finish()
    (lost,) = await world.service.claim_due(10)
    assert await world.round() == 0
    world.clock.advance(world.config.claim_seconds)
    assert await world.round() == 1
    assert (await world.only()).attempts == 2
    # The process was only slow: what it has to say is not written over the other's word.
    await world.service.deliver(lost)
    assert (await world.only()).attempts == 2


@pytest.mark.parametrize(("point", "sent"), [("before_send", 1), ("after_send", 2)])
async def test_a_process_that_dies_around_a_try(world: World, point: str, sent: int) -> None:
    """K19: at least once, with the same bytes, and the schedule survives."""
    await world.finish()
    (claimed,) = await world.service.claim_due(1)
    failpoints.arm(f"webhooks.deliver.{point}=error")
    try:
        with pytest.raises(failpoints.FailpointError):
            await world.service.deliver(claimed)
    finally:
        failpoints.disarm()
    assert (await world.only()).status is DeliveryStatus.PENDING
    await world.until_due()
    assert await world.round() == 1
    assert (await world.only()).status is DeliveryStatus.DELIVERED
    assert len(world.sender.sent) == sent
    assert len({body for _, body, _ in world.sender.sent}) == 1
    assert world.jobs.asked == 1


async def test_the_token_is_sealed_at_rest(world: World) -> None:
    world.sender.answers = [Answer(500, "no")]
    await world.finish()
    await world.round()
    waiting = await world.only()
    assert waiting.token is not None
    assert b"canary" not in waiting.token
    assert "canary" not in repr(waiting)
    await world.database.stop()
    stored = b"".join(path.read_bytes() for path in world.folder.iterdir())
    assert b"canary" not in stored


async def test_signed_when_there_is_a_secret(tmp_path: Path) -> None:
    world = World(tmp_path, signing_secret="s3cret")
    await world.database.start()
    world.sender.answers = [Answer(500, "no"), Answer(200)]
    await world.finish()
    await world.round()
    await world.until_due()
    await world.round()
    for _, body, headers in world.sender.sent:
        timestamp = headers["X-JungleGrid-Callback-Timestamp"]
        wanted = signature("s3cret", timestamp, body)
        assert headers["X-JungleGrid-Callback-Signature"] == wanted
    signatures = [each[2]["X-JungleGrid-Callback-Signature"] for each in world.sender.sent]
    assert signatures[0] != signatures[1]
    await world.database.stop()


async def test_the_loop_is_woken_and_a_slow_receiver_holds_nobody_up(world: World) -> None:
    world.sender.gate = asyncio.Event()
    parts = loops.parts(world.service, world.clock, world.wake, world.config)
    for part in parts:
        await part.start()
    for job_id in ("job_1", "job_2"):
        world.sender.news.clear()
        await world.finish(job_id)
        await world.sender.news.wait()
    assert len(world.sender.sent) == 2
    world.sender.gate.set()
    for part in parts:
        await part.stop()


async def test_operators_see_deliveries_without_secrets(world: World) -> None:
    world.sender.answers = [Answer(500, "the receiver answered 500")]
    await world.finish()
    await world.round()
    door = WebhookInternalService(world.service)
    request = pb.ListDeliveriesRequest(workspace_id="ws_1", job_id="job_1")
    (view,) = (await door.ListDeliveries(request, None)).deliveries
    assert (view.status, view.attempts, view.last_status) == (
        pb.DELIVERY_STATUS_PENDING, 1, 500,
    )  # fmt: skip
    assert view.HasField("next_attempt_time")
    assert b"canary" not in view.SerializeToString()
    request.workspace_id = "ws_2"
    assert not (await door.ListDeliveries(request, None)).deliveries


async def test_old_deliveries_are_forgotten(world: World) -> None:
    await world.finish()
    await world.round()
    world.clock.advance(29 * 86_400)
    assert await world.service.expire() == 0
    world.clock.advance(2 * 86_400)
    assert await world.service.expire() == 1


async def test_writes_are_guarded(world: World) -> None:
    await world.finish()
    stale = await world.only()
    await world.round()
    repository, scope = WebhooksRepository(), SystemScope("test")
    with pytest.raises(StaleWrite):
        await world.database.write(lambda tx: repository.update(tx, scope, stale))


async def test_migrations_make_the_tables(world: World) -> None:
    assert await world.database.read(lambda tx: schema_drift(tx, tables.metadata)) == []


@pytest.mark.parametrize("status", DeliveryStatus)
def test_every_state_moves_as_the_table_says(status: DeliveryStatus) -> None:
    found = Delivery("ws_1", "dlv_1", "job_1", "completed", NOW, NOW, status=status)
    backoff = moves.Backoff(8, 30, 60)
    every: list[Callable[[], Delivery]] = [
        lambda: moves.claim(found, NOW),
        lambda: moves.settle(found, Answer(200), NOW, backoff, 0.5),
        lambda: moves.settle(found, Answer(500), NOW, backoff, 0.5),
        lambda: moves.block(found, "no", NOW),
        lambda: moves.give_up(found, "no", NOW),
        lambda: moves.postpone(found, "no", NOW),
    ]
    for move in every:
        if MOVES[status]:
            assert move().status in MOVES[status]
        else:
            with pytest.raises(IllegalMove):
                move()
