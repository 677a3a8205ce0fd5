"""What every Runtime promises, on each of them. A job is given twice: as Python and as a script."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from libs.errors import AlreadyExists, InvalidRequest
from services.node_daemon.runtime.port import ExitReason, Phase, Runtime
from services.node_daemon.spool import STDERR, STDOUT, Kind
from tests.support import runtimes

FOREVER = "import time; print('on', flush=True); time.sleep(600)"


async def test_exit_code_log_and_counts(runtime: Runtime) -> None:
    task = runtimes.python(
        "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)",
        "stdout=out;stderr=err;exit=3",
    )
    done = await runtimes.run(runtime, task)
    assert (done.exit.reason, done.exit.code) == (ExitReason.EXITED, 3)
    assert done.lines(STDOUT) == ["out"]
    assert done.lines(STDERR) == ["err"]
    assert (done.exit.stdout_entries, done.exit.stderr_entries) == (1, 1)
    assert done.exit.log_bytes == 8
    assert not done.exit.timed_out
    assert not done.exit.oom_killed
    assert done.exit.started_time is not None
    assert done.exit.finished_time is not None
    assert done.exit.started_time <= done.exit.finished_time


async def test_a_log_ends_at_the_spool_size_with_an_end_per_stream(runtime: Runtime) -> None:
    attempt = await runtimes.begin(runtime, runtimes.python("print('a')", "stdout=a"))
    ended = await attempt.wait()
    offset = 0
    ends: dict[int, int] = {}
    while (batch := attempt.logs.read(offset)).blocks:
        ends |= batch.ends
        offset = batch.next_offset
    assert offset == ended.spool_bytes
    assert ends == {STDOUT: 1, STDERR: 0}
    await attempt.release()


async def test_many_lines_arrive_whole_and_in_order(runtime: Runtime) -> None:
    code = "import sys; sys.stdout.writelines(f'line {i}\\n' for i in range(1, 20001))"
    done = await runtimes.run(runtime, runtimes.python(code, "lines=20000"))
    assert done.lines() == [f"line {number}" for number in range(1, 20001)]
    assert [entry.seq for entry in done.entries] == list(range(1, 20001))


async def test_the_log_limit_leaves_one_marker(runtime: Runtime) -> None:
    code = "for i in range(1, 1001): print('line', i)"
    done = await runtimes.run(runtime, runtimes.python(code, "lines=1000", log_bytes_max=1000))
    assert done.entries[-1].kind is Kind.TRUNCATED
    kept = [entry.data for entry in done.entries[:-1]]
    assert kept == [f"line {number}".encode() for number in range(1, len(kept) + 1)]
    assert done.exit.log_bytes <= 1000
    assert done.exit.log_bytes + done.exit.log_bytes_dropped == sum(
        len(f"line {number}\n") for number in range(1, 1001)
    )


async def test_stop_ends_it(runtime: Runtime) -> None:
    attempt = await runtimes.begin(runtime, runtimes.python(FOREVER, "stdout=on;hang"))
    await runtimes.first_line(attempt)
    attempt.stop("cancelled by the user", 5.0)
    attempt.stop("again", 5.0)
    done = await runtimes.finish(attempt)
    assert done.exit.reason is ExitReason.STOPPED
    assert done.exit.signal == 15
    assert done.exit.message == "cancelled by the user"
    await attempt.release()
    await attempt.release()


async def test_the_time_limit_ends_it(runtime: Runtime) -> None:
    task = runtimes.python(FOREVER, "stdout=on;hang", timeout_seconds=0.4)
    done = await runtimes.run(runtime, task)
    assert done.exit.timed_out
    assert done.exit.reason is ExitReason.TIMED_OUT


async def test_a_lease_that_is_not_renewed_ends_it(runtime: Runtime) -> None:
    attempt = await runtimes.begin(runtime, runtimes.python(FOREVER, "stdout=on;hang"), lease=0.6)
    started = time.monotonic()
    done = await runtimes.finish(attempt)
    assert done.exit.reason is ExitReason.LEASE_EXPIRED
    assert not done.exit.timed_out
    assert time.monotonic() - started < 3
    await attempt.release()


async def test_a_renewed_lease_lets_it_end_by_itself(runtime: Runtime) -> None:
    task = runtimes.python("import time; time.sleep(1.0)", "sleep=1.0")
    attempt = await runtimes.begin(runtime, task, lease=0.8)
    attempt.renew(time.monotonic() + 30)
    done = await runtimes.finish(attempt)
    assert (done.exit.reason, done.exit.code) == (ExitReason.EXITED, 0)
    await attempt.release()


async def test_artifacts_are_read_back_as_written(runtime: Runtime) -> None:
    code = "open('/workspace/artifacts/result.txt', 'w').write('42')"
    attempt = await runtimes.begin(runtime, runtimes.python(code, "artifact=result.txt:42"))
    with await attempt.artifacts() as collection:
        assert [(file.name, b"".join(file.chunks())) for file in collection.files] == [
            ("result.txt", b"42")
        ]
        assert collection.refusals == ()
    await attempt.release()


async def test_release_wipes_the_workspace_and_frees_the_lease(runtime: Runtime) -> None:
    task = runtimes.python("open('/workspace/artifacts/a', 'w').write('x')", "artifact=a:x")
    prepared = await runtime.prepare(task, runtimes.Told())
    (prepared.staging.inputs / "in.txt").write_text("staged")
    attempt = await runtime.start(prepared, time.monotonic() + 30)
    await attempt.wait()
    await attempt.release()
    workspace = prepared.staging.workspace
    assert not workspace.exists() or list(workspace.iterdir()) == []
    assert not await runtime.adopt()


async def test_discard_gives_the_slot_back(runtime: Runtime) -> None:
    for _ in range(6):
        prepared = await runtime.prepare(runtimes.python("", ""), runtimes.Told())
        await runtime.discard(prepared)


async def test_phases_are_told_in_order(runtime: Runtime) -> None:
    told = runtimes.Told()
    prepared = await runtime.prepare(runtimes.python("", ""), told)
    attempt = await runtime.start(prepared, time.monotonic() + 30)
    await attempt.wait()
    await attempt.release()
    wanted = [Phase.RUNTIME_PREPARATION, Phase.CONTAINER_STARTING, Phase.RUNNING]
    assert [phase for phase in told.phases if phase in wanted] == wanted
    if runtime.name != "docker":
        assert Phase.NOTICE in told.phases
    assert all(details.get("simulated") for _, _, details in told.calls) is runtime.simulated


async def test_a_lease_starts_once_only(runtime: Runtime) -> None:
    task = runtimes.python("", "")
    attempt = await runtimes.begin(runtime, task)
    with pytest.raises(AlreadyExists):
        await runtimes.begin(runtime, task)
    await attempt.wait()
    await attempt.release()


async def test_an_acknowledged_offset_is_kept(runtime: Runtime) -> None:
    attempt = await runtimes.begin(runtime, runtimes.python("print(1)", "stdout=1"))
    await attempt.wait()
    assert attempt.logs.acknowledged == 0
    batch = attempt.logs.read(0)
    attempt.logs.acknowledge(batch.next_offset)
    assert attempt.logs.acknowledged == batch.next_offset
    await attempt.release()


async def test_attempts_run_side_by_side_each_in_its_own_workspace(runtime: Runtime) -> None:
    code = (
        "import os, time; open('/workspace/artifacts/' + os.environ['NAME'], 'w');"
        "time.sleep(0.2); print(*os.listdir('/workspace/artifacts'))"
    )
    tasks = []
    for name in ("a", "b", "c"):
        task = runtimes.python(code, f"artifact={name}:;sleep=0.2;stdout={name}")
        tasks.append(replace(task, environment={**task.environment, "NAME": name}))
    results = await asyncio.gather(*(runtimes.run(runtime, task) for task in tasks))
    assert [done.lines() for done in results] == [["a"], ["b"], ["c"]]


async def test_bad_launches_are_refused_with_a_reason(runtime: Runtime) -> None:
    if runtime.simulated:
        with pytest.raises(InvalidRequest):
            await runtime.prepare(runtimes.python("", "dance=1"), runtimes.Told())
        return
    bad = runtimes.python("", lease_id="../escape")
    with pytest.raises(InvalidRequest):
        prepared = await runtime.prepare(bad, runtimes.Told())
        await runtime.start(prepared, time.monotonic() + 30)


async def test_a_program_that_does_not_exist_is_127(runtime: Runtime) -> None:
    done = await runtimes.run(runtime, runtimes.launch("no-such-program", script="exit=127"))
    assert (done.exit.reason, done.exit.code) == (ExitReason.EXITED, 127)


async def test_too_much_memory_is_told_as_oom(runtime: Runtime) -> None:
    code = "x = []\nwhile True: x.append(bytearray(4 << 20))"
    task = runtimes.python(code, "oom", memory_bytes=64 * runtimes.MIB)
    done = await runtimes.run(runtime, task)
    assert done.exit.oom_killed
    assert done.exit.code == 137
