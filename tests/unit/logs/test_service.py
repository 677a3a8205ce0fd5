"""The service on a real database file: what readers and followers get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import services.logs
from libs.clock import ManualClock
from libs.db import connect
from libs.errors import NotFound
from libs.tenancy import Tenant
from services.logs import repository
from services.logs.config import LogsConfig
from services.logs.domain import Batch, Line, Stream, Update
from services.logs.repository import LogsRepository
from services.logs.service import Intake, JobRef, LogsService
from services.logs.tables import metadata
from services.logs.tail import TailHub

WS, OTHER, JOB = Tenant("ws_1"), Tenant("ws_2"), "job_1"
CONFIG = LogsConfig(page_entries_max=3, chunk_entries_max=2, tail_entries=4)


class Owner:
    """The jobs service, which knows one job."""

    def __init__(self) -> None:
        self.asked = 0

    async def get_ref(self, tenant: Tenant, job_id: str) -> JobRef:
        self.asked += 1
        if (tenant, job_id) != (WS, JOB):
            raise NotFound("no such job")
        return JobRef("queued", 1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
async def service(tmp_path: Path, clock: ManualClock) -> AsyncIterator[LogsService]:
    database = connect(
        f"sqlite:///{tmp_path}/logs.db",
        metadata=metadata,
        migrations=Path(services.logs.__file__).parent / "migrations",
        clock=clock,
        service="logs",
    )
    await database.start()
    yield LogsService(
        database=database,
        repository=LogsRepository(),
        jobs=Owner(),
        hub=TailHub(CONFIG.tail_entries, clock),
        clock=clock,
        config=CONFIG,
    )
    await database.stop()


def intake(*numbers: int, stream: Stream = Stream.STDOUT, **more: object) -> Intake:
    found = [Line(stream, number, f"{stream} {number}") for number in numbers]
    return Intake(WS.workspace_id, JOB, Batch(1, 0, found, **more))  # type: ignore[arg-type]


async def finish(service: LogsService, status: str = "completed") -> None:
    await service._database.write(
        lambda tx: service.apply_finished(tx, WS, JOB, status, exit_code=0, lease_open=False)
    )


async def test_pages_by_cursor_hold_every_line_once(service: LogsService) -> None:
    for start in range(1, 20, 5):
        await service.append([intake(*range(start, start + 5))])
    seen, cursor, more = [], 0, True
    while more:
        page = await service.list_logs(WS, JOB, cursor, 3, None)
        seen += [entry.line.seq for entry in page.entries]
        cursor, more = page.entries[-1].entry_id, page.has_more
    assert seen == list(range(1, 21))


async def test_tail_gives_the_latest_of_one_stream_oldest_first(service: LogsService) -> None:
    await service.append([intake(1, 2, 3), intake(1, 2, stream=Stream.STDERR), intake(4)])
    page = await service.tail_logs(WS, JOB, 2, Stream.STDOUT)
    assert [entry.line.text for entry in page.entries] == ["stdout 3", "stdout 4"]


async def test_batches_of_one_job_in_one_commit_keep_their_order(service: LogsService) -> None:
    outcome = await service.append([intake(1, 2), intake(2, 3), intake(4)])
    assert [accepted.durable[Stream.STDOUT] for accepted in outcome] == [2, 3, 4]
    page = await service.list_logs(WS, JOB, 0, 10, None)
    assert [entry.entry_id for entry in page.entries] == [1, 2, 3, 4]


async def test_another_workspace_sees_nothing(service: LogsService) -> None:
    await service.append([intake(1)])
    with pytest.raises(NotFound):
        await service.list_logs(OTHER, JOB, 0, 10, None)


async def test_a_job_not_heard_of_is_asked_for_at_its_owner(service: LogsService) -> None:
    page = await service.list_logs(WS, JOB, 0, 10, None)
    assert (page.log.status, list(page.entries)) == ("queued", [])


async def collect(service: LogsService, cursor: int = 0) -> list[Update]:
    return [update async for update in service.follow(WS, JOB, cursor, None)]


async def test_a_follower_gets_every_line_then_the_end(service: LogsService) -> None:
    await service.append([intake(1, 2, 3, 4, 5)])
    following = asyncio.create_task(collect(service))
    await asyncio.sleep(0)
    for number in range(6, 30):
        await service.append([intake(number)])
    await finish(service)
    updates = await following
    assert [u.entry.line.seq for u in updates if u.entry] == list(range(1, 30))
    assert updates[-1].end is not None
    assert updates[-1].end.status == "completed"


async def test_followers_that_come_back_anywhere_miss_and_repeat_nothing(
    service: LogsService,
) -> None:
    await service.append([intake(*range(1, 10))])
    await finish(service)
    for cursor in range(10):
        updates = await collect(service, cursor)
        assert [u.entry.entry_id for u in updates if u.entry] == list(range(cursor + 1, 10))


async def test_an_idle_follower_gets_beats(service: LogsService, clock: ManualClock) -> None:
    await service.append([intake(1)])
    stream = service.follow(WS, JOB, 0, None)
    assert (await anext(stream)).status == "queued"
    assert (await anext(stream)).entry is not None
    beat = asyncio.ensure_future(anext(stream))
    while not clock.sleepers:  # noqa: ASYNC110 - one turn of the loop a time, no timer
        await asyncio.sleep(0)
    clock.advance(CONFIG.heartbeat_seconds)
    assert (await beat).beat == clock.now()
    await stream.aclose()


async def test_a_lost_node_leaves_a_line_that_names_the_hole(service: LogsService) -> None:
    await service.append([intake(1, 2)])
    await service._database.write(lambda tx: service.apply_closed(tx, WS, JOB, 1, lost=True))
    page = await service.list_logs(WS, JOB, 0, 10, None)
    last = page.entries[-1].line
    assert last.stream is Stream.SYSTEM
    assert "stdout after line 2" in last.text
    refused = await service.append([intake(3)])
    assert refused[0].refused is not None


async def test_a_node_lost_before_its_first_line_leaves_a_notice_too(service: LogsService) -> None:
    await service.append([intake(1)])
    closed = service.apply_closed
    await service._database.write(lambda tx: closed(tx, WS, JOB, 2, lost=True))
    page = await service.list_logs(WS, JOB, 0, 10, None)
    assert page.log.gap and page.entries[-1].attempt == 2
    assert "nothing had come yet" in page.entries[-1].line.text


async def test_old_logs_go_and_young_ones_stay(service: LogsService, clock: ManualClock) -> None:
    await service.append([intake(1)])
    await finish(service)
    clock.advance(29 * 86_400)
    assert await service.expire_logs() == 0
    clock.advance(2 * 86_400)
    assert await service.expire_logs() == 1
    page = await service.list_logs(WS, JOB, 0, 10, None)
    assert list(page.entries) == []


async def test_tails_are_cut_by_lines_and_bytes(service: LogsService) -> None:
    await service.append([intake(*range(1, 8)), intake(1, stream=Stream.STDERR)])
    _, out, err = await service.get_log_tails(WS, JOB, 2, 1000)
    assert (out.text, out.truncated) == ("stdout 6\nstdout 7", True)
    assert (err.text, err.truncated) == ("stderr 1", False)
    _, out, _ = await service.get_log_tails(WS, JOB, 7, 8)
    assert (out.text, out.truncated) == ("stdout 7", True)


async def test_a_read_of_one_stream_does_not_open_the_chunks_of_the_other(
    service: LogsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 40):
        await service.append([intake(number)])
    await service.append([intake(1, stream=Stream.STDERR)])
    opened = 0
    decode = repository._decode

    def counted(data: bytes) -> object:
        nonlocal opened
        opened += 1
        return decode(data)

    monkeypatch.setattr(repository, "_decode", counted)
    page = await service.tail_logs(WS, JOB, 100, Stream.STDERR)
    assert [entry.line.text for entry in page.entries] == ["stderr 1"]
    assert opened == 1
