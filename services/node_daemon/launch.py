"""The daemon's side of the zygote: starts it, asks it for shims, starts it again if it is gone."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.node_daemon.cgroups import Group
from services.node_daemon.shim_link import LAUNCH
from services.node_daemon.zygote import REQUEST

_ROOT = Path(__file__).resolve().parents[2]
_START = (
    "import sys; sys.path.insert(0, {root!r}); from services.node_daemon.zygote import main; main()"
)


class Zygote:
    """Makes seats: shims without a job. Use from one thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts the process if it is not there; returns without waiting for its imports."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = _START.format(root=str(_ROOT))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            )
        self._socket = ours

    def seat(self, group: Group | None) -> socket.socket:
        """Forks a shim, with a parked child in `group` if one is given; returns its connection.

        Returns without waiting for it. Raises OSError when no zygote can be had.
        """
        self.start()
        try:
            return self._request(group)
        except (BrokenPipeError, ConnectionResetError):
            # It died since the last request; a request that it did not take has started nothing.
            self.close()
            self.start()
            return self._request(group)

    def _request(self, group: Group | None) -> socket.socket:
        assert self._socket is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                spec = {"group": None if group is None else group.to_json()}
                _send_memory(self._socket, REQUEST, spec, theirs.fileno())
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        return ours

    def close(self) -> None:
        """Ends the zygote; shims live on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def give_job(seat: socket.socket, spec: Mapping[str, Any]) -> None:
    """Sends the job to a seat. Raises OSError when nobody sits there any more."""
    _send_memory(seat, LAUNCH, spec)


def is_taken(seat: socket.socket) -> bool:
    """Whether a shim is still at the other end."""
    try:
        return seat.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _send_memory(to: socket.socket, word: bytes, value: Mapping[str, Any], *more: int) -> None:
    """Sends `word` with a memory file that holds `value`, and further descriptors."""
    memory = os.memfd_create("jg-order", os.MFD_CLOEXEC)
    try:
        view = memoryview(json.dumps(value).encode())
        while view:
            view = view[os.write(memory, view) :]
        os.lseek(memory, 0, os.SEEK_SET)
        fds = array.array("i", [memory, *more])
        to.sendmsg([word], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    finally:
        os.close(memory)
