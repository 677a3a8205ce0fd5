"""What one job costs in calls, records and commits (architecture 3b.2): a budget, not a wish."""

from __future__ import annotations

import asyncio

from tests.support.drains import Metrics, records
from tests.support.stack import Stack, stack

JOBS = 32
AT_ONCE = 16
# Streams, and what belongs to the person who watches rather than to the job.
NOT_OF_THE_JOB = {
    "Sync", "AppendLogs", "StreamLogs", "WatchRevocations", "GetJob", "GetJobRef", "ResolveKey",
    "GetBalance", "ListNodes",
}  # fmt: skip
DRAFT = {
    "environment": {"JUNGLEGRID_SIMULATE": "exit=0;stdout=hello"},
}


async def run_jobs(whole: Stack, count: int) -> list[str]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> str:
        async with gate:
            job_id = await whole.submit(**DRAFT)
            job = await whole.finished(job_id)
            assert job["status"] == "completed"
            await whole.settled(job_id)
            return job_id

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def test_calls_records_and_commits_of_a_job_stay_within_budget() -> None:
    async with stack(runtime="simulated", gpus="simulated:l4:24GiB:16") as whole:
        await run_jobs(whole, 4)  # connections, caches
        before = Metrics(whole.grid.url)
        done = set(await run_jobs(whole, JOBS))
        after = Metrics(whole.grid.url)
        calls = {
            method: count - before.by("grid_rpc_server_calls_total", "method").get(method, 0.0)
            for method, count in after.by("grid_rpc_server_calls_total", "method").items()
            if method not in NOT_OF_THE_JOB
        }
        commits = {
            service: (count - before.by("grid_db_commits_total", "service").get(service, 0)) / JOBS
            for service, count in after.by("grid_db_commits_total", "service").items()
            if service != "bus"  # its appends are the records, counted as such
        }
        told = [topic for topic, key, _ in records(whole.grid.home) if key in done]
    per_job = {name: count / JOBS for name, count in calls.items() if count}
    print(f"calls {per_job}, records {len(told) / JOBS}, commits {commits}")
    assert sum(per_job.values()) <= 8, per_job
    assert len(told) / JOBS <= 9, sorted(told)[:20]
    assert sum(commits.values()) <= 14, commits
