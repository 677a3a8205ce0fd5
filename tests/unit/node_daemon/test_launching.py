"""What is asked of bwrap, of the engine and of the zygote."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from libs.errors import InvalidRequest
from services.node_daemon.runtime import bwrap, rootfs
from services.node_daemon.runtime.docker import DockerConfig, PullProgress, container_config
from services.node_daemon.runtime.rootfs import Rootfs, UnusablePython
from services.node_daemon.runtime.simulated import Step, parse_script
from services.node_daemon.slots import Slot
from tests.support.runtimes import MIB, launch

ROOT = Path(__file__).resolve().parents[3]
SLOT = Slot(0, 201_000, 32 * MIB, Path("/run/x/slot0"))


def test_the_zygote_is_small_and_loads_no_framework() -> None:
    """Forking is cheap because there is little to fork; and none of it may have threads."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import services.node_daemon.zygote;"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert not loaded & {
        "asyncio", "grpc", "sqlalchemy", "aiohttp", "google", "libs", "threading", "http",
        "urllib", "pathlib", "ssl", "logging", "concurrent",
    }  # fmt: skip


def test_the_recipe_is_all_there() -> None:
    root = Rootfs(Path("/run/x/root"), Path("/usr/bin/python3.11"), ())
    given = bwrap.options(root, bwrap.Sandbox(SLOT.workspace, 64 * MIB, {"A": "b"}))
    text = " ".join(given)
    for part in (
        "--unshare-all", "--unshare-user", "--disable-userns", "--uid 1000", "--gid 1000",
        "--cap-drop ALL", "--die-with-parent", "--new-session", "--clearenv",
        "--ro-bind /run/x/root /", "--proc /proc", "--dev /dev",
        f"--size {64 * MIB} --tmpfs /tmp", f"--size {64 * MIB} --tmpfs /dev/shm",
        "--bind /run/x/slot0 /workspace", "--seccomp 3", "--setenv A b", "--setenv HOME /workspace",
    ):  # fmt: skip
        assert part in text
    assert "--share-net" not in text
    assert text.index("--ro-bind /run/x/root /") < text.index("--proc /proc")


def test_devices_are_passed_only_when_they_were_given() -> None:
    root = Rootfs(Path("/r"), Path("/p"), ())
    plain = bwrap.options(root, bwrap.Sandbox(SLOT.workspace, 0, {}))
    with_gpu = bwrap.options(root, bwrap.Sandbox(SLOT.workspace, 0, {}, ("/dev/nvidia0",)))
    assert "--dev-bind" not in plain
    assert "--dev-bind /dev/nvidia0 /dev/nvidia0" in " ".join(with_gpu)


def test_the_jobs_variables_win_over_ours() -> None:
    root = Rootfs(Path("/r"), Path("/p"), ())
    given = bwrap.options(root, bwrap.Sandbox(SLOT.workspace, 0, {"PATH": "/mine"}))
    at = [i for i, word in enumerate(given) if word == "PATH"]
    assert [given[i + 1] for i in at] == ["/mine"]


def test_python_is_the_base_interpreter_behind_the_virtual_environment() -> None:
    prefix, python = rootfs.find_python()
    assert prefix == Path(sys.base_prefix).resolve()
    assert python.is_relative_to(prefix)


def test_a_python_that_others_may_not_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).write_text("")
    (tmp_path / "bin" / name).chmod(0o700)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(UnusablePython, match="chmod"):
        rootfs.find_python()


def test_a_container_is_asked_for_with_every_limit() -> None:
    task = launch("echo", "hi", cpu_millis=1500, gpu_indices=(1,), pids_max=99)
    asked = container_config(task, SLOT, DockerConfig(gpu_uuids={0: "GPU-a", 1: "GPU-b"}))
    host = asked["HostConfig"]
    assert asked["User"] == "201000:201000"
    assert asked["Cmd"] == ["echo", "hi"]
    assert "Entrypoint" not in asked
    assert (host["Memory"], host["MemorySwap"]) == (task.memory_bytes, task.memory_bytes)
    assert (host["NanoCpus"], host["PidsLimit"]) == (1_500_000_000, 99)
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    assert (host["ReadonlyRootfs"], host["NetworkMode"]) == (True, "none")
    assert host["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["GPU-b"], "Capabilities": [["gpu"]]}
    ]


def test_no_command_leaves_the_images_own() -> None:
    assert "Cmd" not in container_config(replace(launch("x"), argv=()), SLOT, DockerConfig())


def test_simulated_gpus_ask_the_engine_for_nothing() -> None:
    asked = container_config(launch("x", gpu_indices=(0,)), SLOT, DockerConfig())
    assert "DeviceRequests" not in asked["HostConfig"]


def test_pull_progress_adds_up_layers() -> None:
    progress = PullProgress()
    for line in (
        {"status": "Pulling from library/python", "id": "3.11"},
        {"status": "Already exists", "id": "a"},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 5, "total": 10}},
        {"status": "Downloading", "id": "c", "progressDetail": {"current": 1, "total": 4}},
        {"status": "Pull complete", "id": "c"},
        {"status": "Status: Downloaded"},
    ):
        progress.add(line)
    assert progress.details("python:3.11") == {
        "image": "python:3.11", "layers_done": 2, "layers_total": 3,
        "bytes_done": 6, "bytes_total": 14,
    }  # fmt: skip


def test_a_simulated_script_is_read_and_bad_ones_are_refused() -> None:
    assert parse_script("sleep=0.5; stdout=a=b ;hang") == (
        Step("sleep", "0.5"), Step("stdout", "a=b"), Step("hang", ""),
    )  # fmt: skip
    for bad in ("dance", "sleep=soon", "exit="):
        with pytest.raises(InvalidRequest):
            parse_script(bad)
