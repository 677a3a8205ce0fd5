"""The composition root: order, listeners, the home and its lock, and refusals in one line."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy import run as root
from deploy.home import HomeInUse, HomeLock, HomeUnusable, load_secrets, prepare
from deploy.run import MODULES, main
from deploy.settings import EMBEDDED, read
from libs.config import ConfigError
from libs.errors import Unavailable
from libs.rpc import connect
from libs.rpc.client import as_service
from tests.support import fake_modules
from tests.support.echo import EchoStub, Text
from tests.support.grid import free_port, grid_here, short_folder

ECHO_PEER = {"GRID_PEERS__ECHO": "unix:{home}/grid.sock"}


def config_with_echo(folder: Path) -> Path:
    path = folder / "fake.toml"
    path.write_text(EMBEDDED.read_text() + 'echo = "unix:{home}/grid.sock"\n')
    return path


@pytest.fixture(autouse=True)
def _fresh_log() -> None:
    fake_modules.LOG.clear()
    fake_modules.ANSWERED = asyncio.Event()


async def test_stores_then_listeners_then_loops_and_the_reverse(tmp_path: Path) -> None:
    config = config_with_echo(tmp_path)
    async with grid_here(modules=fake_modules.MODULES, config=config) as grid:
        await fake_modules.ANSWERED.wait()
        assert fake_modules.LOG == ["+echo.db", "+asker.db", "hi service:asker"]
        for name in ("grid.sock", "node.sock", "secrets.json"):
            assert (grid.home / name).stat().st_mode & 0o077 == 0
    assert fake_modules.LOG[-2:] == ["-asker.db", "-echo.db"]
    assert not (grid.home / "grid.sock").exists()


async def test_a_service_calls_as_itself_through_the_one_socket(tmp_path: Path) -> None:
    config = config_with_echo(tmp_path)
    async with grid_here(modules=fake_modules.MODULES, config=config) as grid:
        stub: Any = EchoStub(grid.context("billing").peers("echo"))
        assert (await stub.Whisper(Text(value="x"))).value == "x service:billing"


async def test_the_node_listener_serves_only_what_modules_gave_it(tmp_path: Path) -> None:
    config = config_with_echo(tmp_path)
    async with (
        grid_here(modules=fake_modules.MODULES, config=config) as grid,
        grpc.aio.insecure_channel(grid.node_address) as channel,
    ):
        stub: Any = EchoStub(channel)
        assert (await stub.Hello(Text(value="hello"))).value == "hello"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Whisper(Text())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_open_stream_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    from libs.rpc import Principal, Signer, context

    config = config_with_echo(tmp_path)
    async with grid_here(modules=fake_modules.MODULES, config=config) as grid:
        signer: Signer = grid.context("gateway").signer
        channel = connect(grid.settings.peers["echo"], principal_source=as_service("x", signer))
        stub: Any = EchoStub(channel)
        with context.acting(Principal("user", "key_1", "ws_1")):
            call = stub.Count(Text())
            await call.read()
            async with asyncio.timeout(1.9):
                await grid.stop()
            with pytest.raises(Unavailable):
                await call.read()
        await channel.close()


async def test_a_peer_without_address_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'echo', which asker calls"):
        async with grid_here(modules=fake_modules.MODULES):
            pass


@pytest.mark.parametrize("name", list(MODULES))
def test_every_need_has_an_address_in_the_embedded_file(name: str, tmp_path: Path) -> None:
    settings = read(EMBEDDED, tmp_path, 8080, {})
    assert set(MODULES[name][1]) <= set(settings.peers)
    assert set(settings.peers) == set(MODULES) - {root.EDGE}


def test_the_embedded_file_takes_home_port_and_overrides(tmp_path: Path) -> None:
    settings = read(
        EMBEDDED,
        tmp_path,
        9000,
        {"GRID_TELEMETRY__LEVEL": "debug", "GRID_JOBS__CPU_POLICY": "allow"},
    )
    assert settings.url == "http://127.0.0.1:9000"
    assert settings.listeners.internal == f"unix:{tmp_path}/grid.sock"
    assert settings.telemetry.level == "debug"
    assert settings.source["jobs"]["cpu_policy"] == "allow"
    assert settings.source["gateway"]["port"] == "9000"


def test_keys_are_made_once_and_kept_private(tmp_path: Path) -> None:
    home = prepare(tmp_path / "g")
    assert home.stat().st_mode & 0o777 == 0o700
    first = load_secrets(home)
    assert load_secrets(home) == first
    assert (home / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert len({*json.loads((home / "secrets.json").read_text()).values()}) == 5
    assert first.principal.hex() not in repr(first)
    assert not [path for path in home.iterdir() if path.name != "secrets.json"]


def test_damaged_or_open_keys_are_refused_and_left_alone(tmp_path: Path) -> None:
    load_secrets(tmp_path)
    path = tmp_path / "secrets.json"
    path.chmod(0o644)
    with pytest.raises(HomeUnusable, match="chmod 600"):
        load_secrets(tmp_path)
    path.chmod(0o600)
    path.write_text('{"principal": "00"}')
    with pytest.raises(HomeUnusable, match="backup"):
        load_secrets(tmp_path)
    assert path.read_text() == '{"principal": "00"}'


def test_a_home_belongs_to_one_grid_or_to_one_process_per_service(tmp_path: Path) -> None:
    whole = HomeLock(tmp_path, "all")
    whole.take()
    for target in ("all", "jobs"):
        with pytest.raises(HomeInUse, match=f"process {os.getpid()}"):
            HomeLock(tmp_path, target).take()
    whole.release()
    jobs, logs = HomeLock(tmp_path, "jobs"), HomeLock(tmp_path, "logs")
    jobs.take()
    logs.take()
    for target in ("all", "jobs"):
        with pytest.raises(HomeInUse):
            HomeLock(tmp_path, target).take()
    jobs.release()
    logs.release()
    whole.take()
    whole.release()


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line


def test_a_home_in_use_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lock = HomeLock(tmp_path, "all")
    lock.take()
    line = complaint(capsys, "all", "--home", str(tmp_path))
    assert "in use by another grid" in line
    assert "GRID_HOME" in line
    lock.release()


def test_a_bad_setting_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_RPC__CALL_TIMEOUT_SECONDS", "soon")
    line = complaint(capsys, "all", "--home", str(tmp_path))
    assert "rpc.call_timeout_seconds must be a number" in line


def test_a_missing_file_a_bad_failpoint_and_a_bad_home_are_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = str(tmp_path / "none.toml")
    assert "does not exist" in complaint(capsys, "all", "--config", gone, "--home", str(tmp_path))
    (tmp_path / "file").write_text("")
    assert "cannot use" in complaint(capsys, "all", "--home", str(tmp_path / "file" / "x"))
    monkeypatch.setenv("GRID_FAILPOINT", "x=boom")
    assert "x=boom" in complaint(capsys, "all", "--home", str(tmp_path))


def test_a_taken_port_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def taken(*_: object, **__: object) -> None:
        with socket.socket() as first:
            first.bind(("127.0.0.1", port))
            first.listen()
            await asyncio.start_server(lambda *_: None, "127.0.0.1", port)

    port = free_port()
    monkeypatch.setattr(root, "serve", taken)
    line = complaint(capsys, "all", "--home", str(tmp_path), "--port", str(port))
    assert line == f"grid: port {port} is taken; stop what uses it or set GRID_PORT to another port"


def test_a_socket_path_that_is_too_long_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from libs.rpc.server import AddressInUse, Server

    async def start() -> None:
        await Server(f"unix:{tmp_path}/{'x' * 100}", [], []).start()

    with pytest.raises(AddressInUse) as caught:
        asyncio.run(start())
    assert "shorter home" in str(caught.value.strerror)


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["all", "--port", port])
    assert caught.value.code == 2
    assert "--port" in capsys.readouterr().err


def test_homes_of_tests_are_short() -> None:
    with short_folder() as folder:
        assert len(str(folder)) < 40
    assert not folder.exists()
