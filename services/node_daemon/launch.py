"""The daemon's side of the zygote: starts it, asks it for shims, starts it again if it is gone."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from services.node_daemon.zygote import REQUEST

_ROOT = Path(__file__).resolve().parents[2]
_START = (
    "import sys; sys.path.insert(0, {root!r}); from services.node_daemon.zygote import main; main()"
)


class Zygote:
    """A pool of none: every request is one fork. Use from one thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Starts the process if it is not there; returns without waiting for its imports."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START.format(root=str(_ROOT)),
                 str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            )  # fmt: skip
        self._socket = ours

    def launch(self, spec: dict[str, Any]) -> socket.socket:
        """Forks a shim for `spec`; returns the connection to it, non-blocking.

        Raises OSError when no zygote can be had. What the shim says comes over the connection.
        """
        self.start()
        try:
            return self._request(spec)
        except (BrokenPipeError, ConnectionResetError):
            # It died since the last request; a request that it did not take has started nothing.
            self.close()
            self.start()
            return self._request(spec)

    def _request(self, spec: dict[str, Any]) -> socket.socket:
        assert self._socket is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.memfd_create("jg-launch", os.MFD_CLOEXEC)
        try:
            _write_all(memory, json.dumps(spec).encode())
            os.lseek(memory, 0, os.SEEK_SET)
            fds = array.array("i", [memory, theirs.fileno()])
            self._socket.sendmsg([REQUEST], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except OSError:
            ours.close()
            raise
        finally:
            os.close(memory)
            theirs.close()
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


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
