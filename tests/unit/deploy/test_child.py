"""The entry point as a process: its ready line, its exit codes, and how fast it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import time

import pytest

from tests.support.grid import GridChild, free_port, grid_child, short_folder


async def test_a_signal_ends_it_cleanly_and_it_starts_again_on_the_same_home() -> None:
    async with grid_child(target="gateway") as grid:
        begun = time.monotonic()
        assert await grid.stop() == 0
        assert time.monotonic() - begun < 5
        keys = (grid.home / "secrets.json").read_bytes()
        await grid.start()
        await grid.kill()
        assert grid.process.returncode == -signal.SIGKILL
        await grid.start()  # neither the lock nor a socket of the killed one is in the way
        assert (grid.home / "secrets.json").read_bytes() == keys


async def test_a_taken_port_is_one_line_and_exit_code_2() -> None:
    with socket.socket() as other, short_folder() as folder:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        grid = GridChild(folder / "g", port, {"GRID_TELEMETRY__LEVEL": "error"}, "gateway")
        with pytest.raises(AssertionError, match=rf"grid: .*{port}.* GRID_PORT"):
            await grid.start()
        assert grid.process.returncode == 2
        assert len(grid.log.read_text().splitlines()) == 1


async def test_two_processes_do_not_share_a_home() -> None:
    async with grid_child(target="gateway") as grid:
        second = GridChild(grid.home, free_port(), {}, "gateway")
        with pytest.raises(AssertionError, match="in use by another grid"):
            await second.start()
        assert second.process.returncode == 2
        reader, writer = await asyncio.open_connection("127.0.0.1", grid.port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"200" in await reader.readline()  # the first one did not notice
        writer.close()
