"""The containerised program: the shim starts the container and stays attached to it.

Why attached, and not the engine's own log: Docker's log readers resume by time stamp, which
repeats or skips lines, and its json-file cuts lines at 16 KiB on its own terms. An attachment made
before the start carries every byte, in order, with back-pressure, and the shim outlives the
daemon, so a restart of the daemon costs nothing. Should the shim die, its attempt is lost, as in
the sandbox: the next daemon removes the container by its lease label.

The engine is spoken to in HTTP/1.0 (a reply ends with its connection), because a shim should not
carry an HTTP library. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from typing import Any

from services.node_daemon.shim_child import Child, ChildOutcome, Output, Watcher, exit_signal
from services.node_daemon.shim_parked import Parked
from services.node_daemon.spool import STDERR, STDOUT

_FRAME_HEADER = 8
_READ_BYTES = 64 * 1024
_CALL_SECONDS = 20.0


class DockerChild(Child):
    """A container that was created, but not started, by the daemon."""

    def __init__(self, spec: dict[str, Any], output: Output, parked: Parked | None) -> None:
        self._socket_path = spec["docker_socket"]
        self._container = spec["container"]
        self._output = output
        self._attached: socket.socket | None = None
        self._waiting: socket.socket | None = None
        self._frames = b""
        self._wait_reply = b""
        self._refused = ""
        self._first: int | None = None

    def start(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._attached, self._frames = self._attach()
        self._waiting = self._send("POST", "wait?condition=next-exit")
        status, reply = self._call("POST", "start")
        if status not in (204, 304):
            self._refuse(reply)
            return
        self.running = True
        self._first = self._first_process()
        for connection, handler in (
            (self._attached, self._read_output),
            (self._waiting, self._read_wait),
        ):
            connection.setblocking(False)
            watcher.watch(connection.fileno(), handler)
        self._unframe()

    def terminate(self) -> None:
        self._signal("SIGTERM")

    def kill(self) -> None:
        """By the engine, and directly: an engine that hangs or died must not keep a job alive."""
        self._kill_first()
        self._signal("SIGKILL")

    def finish(self) -> ChildOutcome:
        if self._refused:
            return self._refusal()
        try:
            status, reply = self._call("GET", "json")
            state = json.loads(reply)["State"] if status == 200 else None
        except (OSError, ValueError):
            state = None
        self._kill_first()
        if state is None or state.get("Running"):
            text = "the container engine went away while the job ran"
            return ChildOutcome(None, failed=text, failed_reason="runtime_lost")
        code = int(state["ExitCode"])
        return ChildOutcome(code, exit_signal(code), bool(state.get("OOMKilled")))

    def clean(self) -> None:
        if self._first is not None:
            os.close(self._first)
        with contextlib.suppress(OSError):
            self._call("DELETE", "?force=1&v=1")

    def _refuse(self, reply: bytes) -> None:
        """The engine would not start it: nothing ran, and nothing more will come."""
        try:
            self._refused = str(json.loads(reply)["message"])
        except (ValueError, KeyError):
            self._refused = reply.decode(errors="replace") or "no reason given"
        self._output(STDERR, self._refused.encode() + b"\n")
        for connection in (self._attached, self._waiting):
            if connection is not None:
                connection.close()
        self.done = True

    def _refusal(self) -> ChildOutcome:
        """A program that is not in the image is the job's fault, as in a shell: 127, or 126."""
        if "executable file not found" in self._refused or "no such file" in self._refused:
            return ChildOutcome(127)
        if "permission denied" in self._refused and "exec" in self._refused:
            return ChildOutcome(126)
        return ChildOutcome(None, failed=f"the container could not be started: {self._refused}")

    def _read_output(self) -> None:
        assert self._attached is not None
        data = _receive(self._attached)
        if data is None:
            return
        if data:
            self._frames += data
            self._unframe()
        else:
            self._end(self._attached)
            self._attached = None
            self.done = self._waiting is None

    def _unframe(self) -> None:
        """Frames are: stream, three zeros, length (big-endian), bytes; they may come in pieces."""
        at, data = 0, self._frames
        while at + _FRAME_HEADER <= len(data):
            length = int.from_bytes(data[at + 4 : at + _FRAME_HEADER], "big")
            end = at + _FRAME_HEADER + length
            if end > len(data):
                break
            stream = STDERR if data[at] == 2 else STDOUT
            self._output(stream, data[at + _FRAME_HEADER : end])
            at = end
        self._frames = data[at:]

    def _read_wait(self) -> None:
        assert self._waiting is not None
        data = _receive(self._waiting)
        if data is None:
            return
        if data:
            self._wait_reply += data
        else:
            self._end(self._waiting)
            self._waiting = None
            self.done = self._attached is None

    def _end(self, connection: socket.socket) -> None:
        self._watcher.forget(connection.fileno())
        connection.close()

    def _first_process(self) -> int | None:
        """A handle on the container's first process: with it, all of the container ends."""
        try:
            status, reply = self._call("GET", "json")
            pid = int(json.loads(reply)["State"]["Pid"]) if status == 200 else 0
            if pid == 0:
                return None  # it has ended already
            handle = os.pidfd_open(pid)
            with open(f"/proc/{pid}/cgroup") as file:
                # Between the engine's word and the handle the number could have been reused.
                if self._container in file.read():
                    return handle
            os.close(handle)
        except (OSError, ValueError, KeyError):
            pass  # then only the engine can end it
        return None

    def _kill_first(self) -> None:
        if self._first is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)

    def _signal(self, name: str) -> None:
        """A refusal means that it is not running (any more): the wait tells the rest."""
        with contextlib.suppress(OSError):
            self._call("POST", f"kill?signal={name}")

    def _attach(self) -> tuple[socket.socket, bytes]:
        """The hijacked connection, and what already came on it behind the reply's head."""
        connection = self._send(
            "POST", "attach?stream=1&stdout=1&stderr=1", "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(4096)
            if not data:
                raise OSError(f"the container engine closed the attachment: {head!r}")
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        if head.split()[1] not in (b"101", b"200"):
            raise OSError(f"the container engine refused the attachment: {rest!r}")
        return connection, rest

    def _call(self, method: str, action: str) -> tuple[int, bytes]:
        with contextlib.closing(self._send(method, action)) as connection:
            reply = b""
            while data := connection.recv(_READ_BYTES):
                reply += data
        head, _, body = reply.partition(b"\r\n\r\n")
        words = head.split(None, 2)
        if len(words) < 2 or not words[1].isdigit():
            raise OSError("the container engine's reply is not HTTP")
        return int(words[1]), body

    def _send(self, method: str, action: str, headers: str = "") -> socket.socket:
        version = "1.1" if headers else "1.0"
        slash = "" if action.startswith("?") else "/"
        text = (
            f"{method} /containers/{self._container}{slash}{action} HTTP/{version}\r\n"
            f"Host: docker\r\nContent-Length: 0\r\n{headers}\r\n"
        )
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_CALL_SECONDS)
            connection.connect(self._socket_path)
            connection.sendall(text.encode())
        except OSError:
            connection.close()
            raise
        return connection


def _receive(connection: socket.socket) -> bytes | None:
    """None when there is nothing this moment; empty at the end, however it came."""
    try:
        return connection.recv(_READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""
