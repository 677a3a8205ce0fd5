"""A greedy job in the sandbox: its limits hold, and what it leaves behind is handled safely."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.node_daemon.collect import Refused
from services.node_daemon.runtime.port import ExitReason, Runtime
from services.node_daemon.runtime.sandbox import SandboxRuntime
from tests.support import runtimes

MIB = runtimes.MIB


async def printed(runtime: Runtime, code: str, **changes: Any) -> list[str]:
    done = await runtimes.run(runtime, runtimes.python(code, **changes))
    assert done.exit.reason is ExitReason.EXITED, done
    return done.lines()


async def test_a_fork_bomb_stays_within_its_limit(sandbox: Runtime) -> None:
    code = (
        "import os, time\n"
        "count = 0\n"
        "while count < 500:\n"
        "    try:\n"
        "        pid = os.fork()\n"
        "    except OSError:\n"
        "        break\n"
        "    if pid == 0: time.sleep(60)\n"
        "    count += 1\n"
        "print(count)\n"
    )
    lines = await printed(sandbox, code, pids_max=40)
    assert 30 <= int(lines[0]) <= 40


async def test_a_fork_bomb_that_outlives_its_parent_is_ended(sandbox: Runtime) -> None:
    code = (
        "import os\n"
        "if os.fork():\n"
        "    os._exit(0)\n"
        "while True:\n"
        "    try:\n"
        "        os.fork()\n"
        "    except OSError:\n"
        "        pass\n"
    )
    attempt = await runtimes.begin(sandbox, runtimes.python(code, pids_max=60))
    done = await runtimes.finish(attempt)
    assert done.exit.code == 0
    assert groups_of(sandbox) == []
    await attempt.release()


async def test_a_job_deaf_to_sigterm_is_killed_after_its_grace(sandbox: Runtime) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    attempt = await runtimes.begin(sandbox, runtimes.python(code))
    await runtimes.first_line(attempt)
    attempt.stop("enough", 3.0)
    done = await runtimes.finish(attempt)
    assert done.exit.signal == 9
    assert done.lines() == ["up", "no"]
    await attempt.release()


async def test_memory_is_limited_in_tmp_and_shm_too(sandbox: Runtime) -> None:
    code = (
        "import os\n"
        "for folder in ('/tmp', '/dev/shm'):\n"
        "    try:\n"
        "        with open(folder + '/big', 'wb') as file:\n"
        "            for _ in range(200): file.write(bytes(1 << 20))\n"
        "        print('filled')\n"
        "    except OSError as error:\n"
        "        print(error.strerror)\n"
    )
    done = await runtimes.run(sandbox, runtimes.python(code, memory_bytes=64 * MIB))
    assert "filled" not in done.lines()


async def test_the_disk_is_limited(sandbox: Runtime) -> None:
    code = (
        "import os\n"
        "written = 0\n"
        "try:\n"
        "    with open('/workspace/big', 'wb', buffering=0) as file:\n"
        "        while True: written += file.write(bytes(1 << 20))\n"
        "except OSError as error:\n"
        "    print(written, error.strerror)\n"
        "print(os.path.exists('/workspace/big'))\n"
    )
    lines = await printed(sandbox, code, disk_bytes=16 * MIB)
    written, _, text = lines[0].partition(" ")
    assert 8 * MIB < int(written) <= 16 * MIB
    assert text in ("No space left on device", "File too large")


async def test_inodes_are_limited(sandbox: Runtime) -> None:
    code = (
        "count = 0\n"
        "try:\n"
        "    while count < 100000:\n"
        "        open(f'/workspace/{count}', 'w').close(); count += 1\n"
        "except OSError as error:\n"
        "    print(count, error.strerror)\n"
    )
    lines = await printed(sandbox, code, disk_bytes=16 * MIB)
    assert lines[0].endswith("No space left on device")
    assert int(lines[0].split()[0]) < 5000


async def test_a_slot_is_clean_after_a_hostile_tree(sandbox: Runtime) -> None:
    code = (
        "import os\n"
        "for _ in range(600):\n"
        "    os.mkdir('d'); os.chdir('d')\n"
        "open('deep', 'w').write('x')\n"
        "os.chdir('/workspace')\n"
        "os.chmod('.', 0); os.symlink('/etc', 'link')\n"
    )
    for _ in range(2):
        await runtimes.run(sandbox, runtimes.python(code))
    lines = await printed(sandbox, "import os; print(sorted(os.listdir('/workspace')))")
    assert lines == ["['artifacts', 'inputs', 'scripts']"]


async def test_hostile_artifacts_are_refused_each_with_its_reason(sandbox: Runtime) -> None:
    code = (
        "import os\n"
        "os.chdir('/workspace/artifacts')\n"
        "open('good', 'w').write('fine')\n"
        "os.symlink('/etc/passwd', 'link')\n"
        "os.symlink('..', 'up')\n"
        "os.link('good2', 'hard') if open('good2', 'w').write('x') else None\n"
        "os.mkfifo('pipe')\n"
        "open('bad\\x1b[31m', 'w').close()\n"
        "open(b'bad\\xff', 'w').close()\n"
        "open('bad\\\\name', 'w').close()\n"
        "os.makedirs('a/b'); open('a/b/nested', 'w').write('n')\n"
        "import socket; socket.socket(socket.AF_UNIX).bind('socket')\n"
        "import resource\n"
        "try: os.truncate(os.open('sparse', os.O_CREAT | os.O_WRONLY), 1 << 40)\n"
        "except OSError as error: print(error.strerror)\n"
    )
    attempt = await runtimes.begin(sandbox, runtimes.python(code))
    done = await runtimes.finish(attempt)
    assert done.lines() == ["File too large"]
    with await attempt.artifacts() as collection:
        assert [file.name for file in collection.files] == ["a/b/nested", "good", "sparse"]
        refused = {refusal.path: refusal.reason for refusal in collection.refusals}
    assert refused == {
        "link": Refused.SYMLINK,
        "up": Refused.SYMLINK,
        "good2": Refused.HARD_LINK,
        "hard": Refused.HARD_LINK,
        "pipe": Refused.NOT_REGULAR,
        "socket": Refused.NOT_REGULAR,
        "bad\\x1b[31m": Refused.BAD_NAME,
        "bad\\xff": Refused.BAD_NAME,
        "bad\\name": Refused.BAD_NAME,
    }
    await attempt.release()


async def test_an_artifacts_folder_that_became_a_link_gives_nothing(sandbox: Runtime) -> None:
    code = "import os; os.rmdir('/workspace/artifacts'); os.symlink('/etc', '/workspace/artifacts')"
    attempt = await runtimes.begin(sandbox, runtimes.python(code))
    with await attempt.artifacts() as collection:
        assert collection.files == ()
        assert [refusal.reason for refusal in collection.refusals] == [Refused.NOT_REGULAR]
    await attempt.release()


async def test_the_processor_is_limited(sandbox: Runtime) -> None:
    code = "import time; end = time.time() + 1.0\nwhile time.time() < end: pass"
    done = await runtimes.run(sandbox, runtimes.python(code, cpu_millis=200))
    assert 0 < done.exit.cpu_nanoseconds < 500_000_000


async def test_a_job_leaves_no_group_behind(sandbox: Runtime) -> None:
    await asyncio.gather(*(runtimes.run(sandbox, runtimes.python("pass")) for _ in range(3)))
    for _ in range(100):
        if not groups_of(sandbox):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(groups_of(sandbox))


def groups_of(sandbox: Runtime) -> list[str]:
    """Control groups of attempts that still hold processes; seats wait in groups of their own."""
    assert isinstance(sandbox, SandboxRuntime)
    waiting = {Path(f).name for s in sandbox._seats._seats for f in s.group.folders.values()}
    return [
        str(path)
        for base in set(sandbox._layout.trees.values())
        for path in Path(base).glob("*/cgroup.procs")
        if path.parent.name not in waiting and path.read_text()
    ]


async def test_a_sandbox_that_cannot_be_set_up_is_told_apart_from_a_job_that_failed(
    sandbox: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_bwrap", "/nonexistent/bwrap")
    told = await runtimes.run(sandbox, runtimes.python("print(1)"))
    assert told.exit.reason is ExitReason.START_FAILED
    assert "No such file" in told.exit.message
    monkeypatch.setattr(sandbox, "_bwrap", "/usr/bin/false")
    told = await runtimes.run(sandbox, runtimes.python("print(1)"))
    assert told.exit.reason is ExitReason.START_FAILED
    assert told.exit.code is None


async def test_a_shim_is_used_again_and_leaks_nothing(sandbox: Runtime) -> None:
    """Jobs one after another are served by the same few shims, each as clean as a new one."""
    assert isinstance(sandbox, SandboxRuntime)
    for _ in range(4):
        await runtimes.run(sandbox, runtimes.python("print('warm')"))
    before = seat_processes(sandbox)
    for number in range(12):
        done = await runtimes.run(sandbox, runtimes.python(f"print({number})"))
        assert done.lines() == [str(number)]
    after = seat_processes(sandbox)
    assert after.keys() == before.keys()
    assert max(after.values()) <= max(before.values()) + 1


def seat_processes(sandbox: SandboxRuntime) -> dict[int, int]:
    """Shims that wait for a job, with how many descriptors each has open."""
    zygote = sandbox._host.zygote.pid
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    return {int(pid): len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in children}
