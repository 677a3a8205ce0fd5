"""What only the docker runtime promises, in real containers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from libs.errors import InvalidRequest
from services.node_daemon.runtime.docker import (
    LABEL,
    DockerConfig,
    DockerRuntime,
    DockerUnavailable,
    ImageNotFound,
)
from services.node_daemon.runtime.port import ExitReason, Phase
from tests.support import docker, runtimes


@pytest_asyncio.fixture
async def runtime(engine: docker.Engine, folders: runtimes.Folders) -> AsyncIterator[DockerRuntime]:
    chosen = runtimes.docker(folders, engine.socket)
    async with runtimes.opened(chosen):
        await chosen.adopt()
        yield chosen


async def test_the_container_is_locked_down(runtime: DockerRuntime) -> None:
    code = (
        "import os, socket\n"
        "def tried(action):\n"
        "    try: action(); return 'done'\n"
        "    except OSError as error: return 'refused'\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(os.getuid() >= 200000, os.getgroups() in ([], [os.getgid()]))\n"
        "print(status['CapEff'].strip(), status['NoNewPrivs'].strip(), status['Seccomp'].strip())\n"
        "print(tried(lambda: open('/evil', 'w')), tried(lambda: open('/etc/passwd', 'a')))\n"
        "print(tried(lambda: socket.create_connection(('1.1.1.1', 53), 2)))\n"
        "print(tried(lambda: open('/tmp/x', 'w')), tried(lambda: open('/workspace/x', 'w')))\n"
        "print(os.getcwd(), os.environ['HOME'])\n"
    )
    done = await runtimes.run(runtime, runtimes.python(code))
    assert done.lines() == [
        "True True",
        "0000000000000000 1 2",
        "refused refused",
        "refused",
        "done done",
        "/workspace /workspace",
    ]


async def test_its_limits_hold(runtime: DockerRuntime) -> None:
    code = (
        "import os, time\n"
        "count = 0\n"
        "try:\n"
        "    while count < 200:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        count += 1\n"
        "except OSError: pass\n"
        "print(count < 40)\n"
        "written = 0\n"
        "try:\n"
        "    with open('/workspace/big', 'wb', buffering=0) as file:\n"
        "        while True: written += file.write(bytes(1 << 20))\n"
        "except OSError as error: print(written < 33 << 20, error.strerror)\n"
    )
    done = await runtimes.run(runtime, runtimes.python(code, pids_max=40))
    assert done.lines() == ["True", "True No space left on device"]


async def test_the_images_entrypoint_is_honoured(
    runtime: DockerRuntime, engine: docker.Engine
) -> None:
    archive = docker.image_archive()
    engine.command(
        "import", "--change", 'ENTRYPOINT ["echo", "entry"]', str(archive), "with-entrypoint:1"
    )
    done = await runtimes.run(runtime, runtimes.launch("given", image="with-entrypoint:1"))
    assert done.lines() == ["entry given"]
    engine.command("rmi", "with-entrypoint:1")


async def test_a_present_image_is_used_and_told(runtime: DockerRuntime) -> None:
    told = runtimes.Told()
    prepared = await runtime.prepare(runtimes.python(""), told)
    await runtime.discard(prepared)
    (details,) = [details for phase, _, details in told.calls if phase is Phase.IMAGE_DOWNLOAD]
    assert details["image"] == "python:3.11"
    assert str(details["id"]).startswith("sha256:")


async def test_an_image_that_cannot_be_had_says_so_and_takes_no_slot(
    runtime: DockerRuntime,
) -> None:
    task = runtimes.python("", image="localhost:1/none:1")
    for _ in range(5):
        with pytest.raises(ImageNotFound, match=r"localhost:1/none:1"):
            await runtime.prepare(task, runtimes.Told())
    with pytest.raises(InvalidRequest):
        await runtime.prepare(runtimes.python("", image=""), runtimes.Told())
    assert (await runtimes.run(runtime, runtimes.python("print(1)"))).lines() == ["1"]


async def test_no_container_is_left(runtime: DockerRuntime, engine: docker.Engine) -> None:
    attempt = await runtimes.begin(runtime, runtimes.python("print(1)"))
    await attempt.wait()
    await attempt.release()
    listed = engine.command("ps", "-aq", "--filter", f"label={LABEL}={attempt.lease_id}")
    assert listed == ""


async def test_a_container_without_an_attempt_is_removed_at_start(
    runtime: DockerRuntime, engine: docker.Engine, folders: runtimes.Folders
) -> None:
    """A daemon that died between creating the container and giving it to a shim."""
    label = f"dev.junglegrid.node={folders.run.name}"
    engine.command("create", "--label", label, "--label", f"{LABEL}=lease_x", "python:3.11", "true")
    await runtime.adopt()
    assert engine.command("ps", "-aq", "--filter", f"label={label}") == ""


async def test_output_is_exact_when_it_comes_in_bursts_on_both_streams(
    runtime: DockerRuntime,
) -> None:
    code = (
        "import sys\n"
        "for i in range(300):\n"
        "    sys.stdout.write(f'out {i} ' + 'x' * 5000 + '\\n')\n"
        "    sys.stderr.write(f'err {i} ' + 'y' * 5000 + '\\n')\n"
    )
    done = await runtimes.run(runtime, runtimes.python(code))
    for stream, name, letter in ((1, "out", "x"), (2, "err", "y")):
        assert done.lines(stream) == [f"{name} {i} {letter * 5000}" for i in range(300)]


async def test_an_engine_that_is_not_there_says_what_to_do(folders: runtimes.Folders) -> None:
    socket = str(folders.state / "none.sock")
    runtime = DockerRuntime(DockerConfig(socket), runtimes.host(folders))
    with pytest.raises(DockerUnavailable, match="start it"):
        await runtime.open()
    runtime._host.close()


async def test_an_engine_that_dies_makes_the_attempt_lost(folders: runtimes.Folders) -> None:
    """Its own engine, because this one is killed. The job must not go on without it."""
    with docker.engine() as doomed:
        runtime = runtimes.docker(folders, doomed.socket)
        async with runtimes.opened(runtime):
            await runtime.adopt()
            code = "import time; print('up', flush=True); time.sleep(600)"
            attempt = await runtimes.begin(runtime, runtimes.python(code))
            await runtimes.first_line(attempt)
            doomed.process.kill()
            doomed.process.wait()
            done = await runtimes.finish(attempt)
            assert done.exit.reason is ExitReason.RUNTIME_LOST
            assert done.lines() == ["up"]
            assert not running("print('up'")
            await attempt.release()


def running(text: str) -> list[int]:
    """Processes, not ended ones, with `text` on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]
