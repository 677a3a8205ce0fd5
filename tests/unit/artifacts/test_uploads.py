"""Artifacts: announced, committed, fenced, listed, downloaded, swept."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from libs import failpoints
from libs.db import Tx
from libs.errors import InvalidRequest, NotFound
from services.artifacts.errors import (
    ArtifactConflict,
    ArtifactLimit,
    ArtifactMismatch,
    ArtifactNotFound,
    ArtifactNotReady,
    ArtifactNotUploaded,
    AttemptSealed,
    InvalidName,
    StaleAttempt,
)
from tests.unit.artifacts import world as worlds
from tests.unit.artifacts.world import OURS, THEIRS, World, announced, attempt

DATA = b"result"


async def test_announce_put_commit_list_download(world: World) -> None:
    done = await world.ready(attempt(), "./out//result.json", DATA)
    assert done.ready
    assert done.filename == "out/result.json"
    [shown] = await world.downloads.list_artifacts(OURS, "job_a")
    assert shown.content_type == "application/json"
    assert shown.sha256 == hashlib.sha256(DATA).hexdigest()
    made = await world.downloads.create_download(OURS, "job_a", shown.artifact_id)
    assert (made.expire_time - world.clock.now()).total_seconds() == 900
    assert made.url not in repr(made)
    assert await world.keys() == [shown.final_key]
    assert await world.bytes_of(shown.final_key) == DATA


async def test_empty_file(world: World) -> None:
    assert (await world.ready(attempt(), "empty", b"")).ready


async def test_create_is_idempotent_and_each_url_is_new(world: World) -> None:
    file = announced("a", DATA)
    first, second = [await world.uploads.create_upload(attempt(), file) for _ in range(2)]
    assert first.artifact == second.artifact
    assert first.request is not None
    assert second.request is not None
    assert first.request.url != second.request.url
    await world.send(first.artifact, DATA)
    await world.uploads.commit_upload(attempt(), first.artifact.artifact_id)
    third = await world.uploads.create_upload(attempt(), file)
    assert third.request is None
    assert third.artifact.artifact_id == first.artifact.artifact_id


async def test_parallel_calls_make_one_artifact(world: World) -> None:
    file = announced("a", DATA)
    made = await asyncio.gather(*(world.uploads.create_upload(attempt(), file) for _ in range(20)))
    [artifact_id] = {upload.artifact.artifact_id for upload in made}
    await world.send(made[0].artifact, DATA)
    done = await asyncio.gather(
        *(world.uploads.commit_upload(attempt(), artifact_id) for _ in range(20))
    )
    assert all(artifact.ready for artifact in done)
    [head] = await world.rows("job_heads")
    assert (head.artifacts, head.size_bytes) == (1, len(DATA))


async def test_many_uploads_at_once_all_arrive(world: World) -> None:
    await asyncio.gather(
        *(world.ready(attempt(1, f"job_{n % 5}"), f"{n}.txt", str(n).encode()) for n in range(60))
    )
    assert len(await world.keys("artifacts/")) == 60
    assert await world.keys("staging/") == []


async def test_announced_anew_before_commit(world: World) -> None:
    old = await world.uploads.create_upload(attempt(), announced("a", b"old"))
    new = await world.uploads.create_upload(attempt(), announced("a", DATA))
    assert new.artifact.artifact_id == old.artifact.artifact_id
    await world.send(new.artifact, DATA)
    done = await world.uploads.commit_upload(attempt(), new.artifact.artifact_id)
    assert await world.bytes_of(done.final_key) == DATA
    [head] = await world.rows("job_heads")
    assert head.size_bytes == len(DATA)
    with pytest.raises(ArtifactConflict):
        await world.uploads.create_upload(attempt(), announced("a", b"third"))


async def test_commit_before_the_bytes(world: World) -> None:
    made = await world.uploads.create_upload(attempt(), announced("a", DATA))
    with pytest.raises(ArtifactNotUploaded):
        await world.uploads.commit_upload(attempt(), made.artifact.artifact_id)
    await world.send(made.artifact, DATA)
    assert (await world.uploads.commit_upload(attempt(), made.artifact.artifact_id)).ready


@pytest.mark.parametrize("sent", [b"resul", b"result2", b"RESULT", b""])
async def test_other_bytes_than_announced_fail_it_for_good(world: World, sent: bytes) -> None:
    made = await world.uploads.create_upload(attempt(), announced("a", DATA))
    await world.send(made.artifact, sent)
    with pytest.raises(ArtifactMismatch):
        await world.uploads.commit_upload(attempt(), made.artifact.artifact_id)
    assert await world.keys() == []
    with pytest.raises(ArtifactConflict):
        await world.uploads.commit_upload(attempt(), made.artifact.artifact_id)
    with pytest.raises(ArtifactConflict):
        await world.uploads.create_upload(attempt(), announced("a", DATA))
    with pytest.raises(ArtifactNotReady, match="failed"):
        await world.downloads.create_download(OURS, "job_a", made.artifact.artifact_id)


async def test_put_after_commit_changes_nothing(world: World) -> None:
    done = await world.ready(attempt(), "a", DATA)
    await world.send(done, b"forged")
    assert (await world.uploads.commit_upload(attempt(), done.artifact_id)).ready
    assert await world.bytes_of(done.final_key) == DATA
    await world.sweeper.sweep()
    assert await world.keys() == [done.final_key]


@pytest.mark.parametrize("name", ["", "../x", "/etc/passwd", "a/../../b", "a\x00", "d/" * 20 + "f"])
async def test_bad_name_leaves_nothing(world: World, name: str) -> None:
    with pytest.raises(InvalidName):
        await world.uploads.create_upload(attempt(), announced(name, DATA))
    assert await world.rows("job_heads") == await world.rows("artifacts") == []


@pytest.mark.parametrize(
    "change", [{"size_bytes": -1}, {"sha256": ""}, {"sha256": "A" * 64}, {"sha256": "0" * 63}]
)
async def test_impossible_announcement(world: World, change: dict[str, object]) -> None:
    file = replace(announced("a", DATA), **change)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        await world.uploads.create_upload(attempt(), file)
    assert await world.rows("job_heads") == []


async def test_limits_hold_exactly_and_leave_nothing(tmp_path: Path) -> None:
    world = worlds.make(
        tmp_path,
        artifacts_per_job_max=3,
        artifact_bytes_max=10,
        artifact_bytes_per_job_max=15,
    )
    await world.start()
    try:
        with pytest.raises(ArtifactLimit):
            await world.uploads.create_upload(attempt(), announced("big", b"x" * 11))
        made = await asyncio.gather(
            *(world.uploads.create_upload(attempt(), announced(str(n), b"xy")) for n in range(30)),
            return_exceptions=True,
        )
        assert sum(isinstance(upload, ArtifactLimit) for upload in made) == 27
        assert len(await world.rows("artifacts")) == 3
        other = attempt(1, "job_b")
        await world.uploads.create_upload(other, announced("a", b"x" * 10))
        with pytest.raises(ArtifactLimit):
            await world.uploads.create_upload(other, announced("b", b"x" * 6))
        with pytest.raises(ArtifactLimit):
            await world.uploads.create_upload(other, announced("b", b"x" * 6))
        assert (await world.uploads.create_upload(other, announced("b", b"x" * 5))).request
    finally:
        await world.stop()


async def test_other_attempts_tasks_and_jobs_cannot_commit_it(world: World) -> None:
    made = await world.uploads.create_upload(attempt(1), announced("a", DATA))
    await world.send(made.artifact, DATA)
    strangers = [
        attempt(2),
        attempt(1, task=1),
        attempt(1, "job_b"),
        replace(attempt(1), tenant=THEIRS),
    ]
    for writer in strangers:
        with pytest.raises(ArtifactNotFound):
            await world.uploads.commit_upload(writer, made.artifact.artifact_id)
    with pytest.raises(ArtifactNotFound):
        await world.uploads.commit_upload(attempt(1), "art_unknown")


async def test_stale_attempt_is_refused_and_hidden(world: World) -> None:
    kept = await world.ready(attempt(1), "kept")
    pending = await world.uploads.create_upload(attempt(1), announced("late", DATA))
    await world.send(pending.artifact, DATA)
    await world.fact(world.uploads.apply_queued, "job_a", 2)
    with pytest.raises(StaleAttempt):
        await world.uploads.create_upload(attempt(1), announced("more", DATA))
    with pytest.raises(StaleAttempt):
        await world.uploads.commit_upload(attempt(1), pending.artifact.artifact_id)
    assert await world.downloads.list_artifacts(OURS, "job_a") == []
    for artifact in (kept, pending.artifact):
        with pytest.raises(ArtifactNotFound):
            await world.downloads.create_download(OURS, "job_a", artifact.artifact_id)
    await world.ready(attempt(2), "kept", b"second")
    [shown] = await world.downloads.list_artifacts(OURS, "job_a")
    assert shown.attempt == 2
    states = {row.filename + str(row.attempt): row.state for row in await world.rows("artifacts")}
    assert states == {"kept1": "ready", "late1": "failed", "kept2": "ready"}


async def test_newer_grant_is_news_of_a_newer_attempt(world: World) -> None:
    pending = await world.uploads.create_upload(attempt(1), announced("a", DATA))
    await world.send(pending.artifact, DATA)
    await world.uploads.create_upload(attempt(2), announced("a", DATA))
    with pytest.raises(StaleAttempt):
        await world.uploads.commit_upload(attempt(1), pending.artifact.artifact_id)
    await world.fact(world.uploads.apply_queued, "job_a", 1)
    [head] = await world.rows("job_heads")
    assert (head.attempt, head.artifacts) == (2, 1)


async def test_sealed_task_takes_nothing_more(world: World) -> None:
    done = await world.ready(attempt(1), "done")
    pending = await world.uploads.create_upload(attempt(1), announced("late", DATA))
    other = await world.uploads.create_upload(attempt(1, task=1), announced("other", DATA))
    await world.send(pending.artifact, DATA)
    await world.send(other.artifact, DATA)
    await world.fact(world.uploads.apply_closed, "job_a", 1, 0)
    for name in ("new", "late"):
        with pytest.raises(AttemptSealed):
            await world.uploads.create_upload(attempt(1), announced(name, DATA))
    with pytest.raises(AttemptSealed):
        await world.uploads.commit_upload(attempt(1), pending.artifact.artifact_id)
    # A repeated commit whose answer was lost is told the truth.
    assert (await world.uploads.commit_upload(attempt(1), done.artifact_id)).ready
    assert (await world.uploads.commit_upload(attempt(1, task=1), other.artifact.artifact_id)).ready
    await world.fact(world.uploads.apply_closed, "job_a", 1, 0)


async def test_final_job_seals_when_no_lease_is_open(world: World) -> None:
    await world.fact(world.uploads.apply_queued, "job_a", 1)
    await world.fact(world.uploads.apply_finished, "job_a", 1, lease_open=True)
    assert (await world.ready(attempt(1), "partial")).ready
    pending = await world.uploads.create_upload(attempt(1), announced("late", DATA))
    await world.fact(world.uploads.apply_closed, "job_a", 1, 0)
    with pytest.raises(AttemptSealed):
        await world.uploads.commit_upload(attempt(1), pending.artifact.artifact_id)
    await world.fact(world.uploads.apply_queued, "job_b", 1)
    await world.fact(world.uploads.apply_finished, "job_b", 1, lease_open=False)
    with pytest.raises(AttemptSealed):
        await world.uploads.create_upload(attempt(1, "job_b"), announced("a", DATA))


async def test_seal_that_comes_during_a_commit_wins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await world.uploads.create_upload(attempt(1), announced("a", DATA))
    await world.send(made.artifact, DATA)
    copy = world.objects.copy

    async def slow_copy(source: str, target: str, *, if_match_etag: str) -> object:
        info = await copy(source, target, if_match_etag=if_match_etag)
        await world.fact(world.uploads.apply_closed, "job_a", 1, 0)
        return info

    monkeypatch.setattr(world.objects, "copy", slow_copy)
    with pytest.raises(AttemptSealed):
        await world.uploads.commit_upload(attempt(1), made.artifact.artifact_id)
    [row] = await world.rows("artifacts")
    assert row.state == "failed"
    world.clock.advance(901)
    await world.sweeper.sweep()
    assert await world.keys() == []


async def test_crash_between_copy_and_row_is_repeated(world: World) -> None:
    made = await world.uploads.create_upload(attempt(), announced("a", DATA))
    await world.send(made.artifact, DATA)
    failpoints.arm("artifacts.commit.after_copy_before_row=error")
    try:
        with pytest.raises(failpoints.FailpointError):
            await world.uploads.commit_upload(attempt(), made.artifact.artifact_id)
    finally:
        failpoints.disarm()
    with pytest.raises(ArtifactNotReady, match="still being uploaded"):
        await world.downloads.create_download(OURS, "job_a", made.artifact.artifact_id)
    assert (await world.uploads.commit_upload(attempt(), made.artifact.artifact_id)).ready


async def test_crash_that_nobody_repeats_leaves_no_orphan(world: World) -> None:
    made = await world.uploads.create_upload(attempt(), announced("a", DATA))
    await world.send(made.artifact, DATA)
    failpoints.arm("artifacts.commit.after_copy_before_row=error")
    try:
        with pytest.raises(failpoints.FailpointError):
            await world.uploads.commit_upload(attempt(), made.artifact.artifact_id)
    finally:
        failpoints.disarm()
    assert len(await world.keys()) == 2
    world.clock.advance(24 * 3600)
    await world.sweeper.sweep()
    assert await world.keys() == []
    [row] = await world.rows("artifacts")
    assert (row.state, row.due_time) == ("failed", None)


async def test_reads_do_not_wait_for_the_bus(world: World) -> None:
    world.jobs.owned.add((OURS.workspace_id, "job_new"))
    assert await world.downloads.list_artifacts(OURS, "job_new") == []
    assert world.jobs.asked == 1
    for tenant, job_id in ((THEIRS, "job_new"), (OURS, "job_unknown")):
        with pytest.raises(NotFound):
            await world.downloads.list_artifacts(tenant, job_id)
    # The first attempt is not worth a row: until something is announced, jobs is asked.
    await world.fact(world.uploads.apply_queued, "job_new", 1)
    assert await world.rows("job_heads") == []
    await world.uploads.create_upload(attempt(1, "job_new"), announced("a", DATA))
    assert len(await world.downloads.list_artifacts(OURS, "job_new")) == 1
    assert world.jobs.asked == 3


async def test_facts_of_one_batch_share_a_read_and_a_write(world: World) -> None:
    uploads = world.uploads
    made = await uploads.create_upload(attempt(1), announced("a", DATA))

    def batch(tx: Tx) -> None:
        uploads.apply_closed(tx, OURS, "job_a", 1, 0)
        uploads.apply_queued(tx, OURS, "job_a", 2)
        uploads.apply_closed(tx, OURS, "job_a", 2, 0)
        uploads.apply_finished(tx, OURS, "job_a", 2, lease_open=False)
        uploads.apply_finished(tx, OURS, "job_b", 1, lease_open=False)

    await world.database.write(batch)
    heads = {row.job_id: row for row in await world.rows("job_heads")}
    assert (heads["job_a"].attempt, heads["job_a"].sealed_attempt) == (2, 2)
    assert (heads["job_a"].version, heads["job_b"].version) == (2, 1)
    with pytest.raises(StaleAttempt):
        await uploads.commit_upload(attempt(1), made.artifact.artifact_id)


async def test_other_workspace_sees_nothing(world: World) -> None:
    done = await world.ready(attempt(), "a")
    with pytest.raises(NotFound):
        await world.downloads.list_artifacts(THEIRS, "job_a")
    with pytest.raises(ArtifactNotFound):
        await world.downloads.create_download(THEIRS, "job_a", done.artifact_id)
    with pytest.raises(ArtifactNotFound):
        await world.downloads.create_download(OURS, "job_b", done.artifact_id)


async def test_list_is_by_filename(world: World) -> None:
    for name in ("b.txt", "a.txt", "c/d.txt"):
        await world.ready(attempt(), name)
    shown = await world.downloads.list_artifacts(OURS, "job_a")
    assert [artifact.filename for artifact in shown] == ["a.txt", "b.txt", "c/d.txt"]


async def test_retention_hides_then_deletes(world: World) -> None:
    done = await world.ready(attempt(1), "a")
    await world.ready(attempt(2), "a", b"second")
    await world.ready(attempt(1, "job_running"), "b")
    await world.fact(world.uploads.apply_finished, "job_a", 2, lease_open=False)
    world.clock.advance(30 * 86_400 - 1)
    await world.sweeper.sweep()
    assert len(await world.downloads.list_artifacts(OURS, "job_a")) == 1
    world.clock.advance(1)
    await world.sweeper.sweep()
    assert await world.downloads.list_artifacts(OURS, "job_a") == []
    assert await world.bytes_of(done.final_key), "a download that has begun goes on"
    world.clock.advance(24 * 3600)
    await world.sweeper.sweep()
    assert [row.job_id for row in await world.rows("artifacts")] == ["job_running"]
    assert len(await world.keys()) == 1


async def test_staging_without_an_owner_goes(world: World) -> None:
    made = await world.uploads.create_upload(attempt(), announced("a", DATA))
    await world.send(made.artifact, DATA)
    slot = await world.slot()
    await world.send(slot.item, DATA)
    for key in ("staging/odd", "staging/input.ws_ours.inp_gone", "staging/artifact.a.b.1.0.c"):
        await world.objects.put(key, b"x", "")
    assert await world.sweeper.sweep() == 3
    assert set(await world.keys()) == {made.artifact.staging_key, slot.item.staging_key}
