"""The shim's connection to whichever daemon is alive.

The first daemon hands over one end of a SEQPACKET pair at launch. A later one connects to the
`ctl` socket in the attempt's folder and takes the first one's place. The daemon learns of the
shim's end by the end of the connection, so nothing has to be sent for that. Standard library only.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from services.node_daemon.shim_child import Watcher

LAUNCH = b"launch"
_TELL_SECONDS = 5.0
_MESSAGE_BYTES_MAX = 4096


class Link:
    """At most one daemon at a time; every send is best effort and never blocks."""

    def __init__(
        self,
        fd: int,
        watcher: Watcher,
        on_message: Callable[[dict[str, Any]], None],
        greeting: Callable[[], dict[str, Any] | None],
    ) -> None:
        self._on_message = on_message
        self._greeting = greeting
        self._peer: socket.socket | None = socket.socket(fileno=fd)
        self._peer.setblocking(False)
        self._first = True
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._watcher = watcher
        watcher.watch(self._peer.fileno(), self._receive)

    def listen(self, path: str) -> None:
        """From here on a later daemon finds the shim at `path`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener.bind(path)
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._watcher.watch(self._listener.fileno(), self._accept)

    def send(self, message: dict[str, Any] | None) -> None:
        if self._peer is None or message is None:
            return
        try:
            self._peer.send(json.dumps(message).encode())
        except BlockingIOError:
            return
        except OSError:
            self._drop()

    def finish(self) -> bool:
        """Tells that the exit is written; True when the daemon that gave the job was told.

        Then the connection stays open for the next job. Any other daemon sees it end.
        """
        self._watcher.forget(self._listener.fileno())
        self._listener.close()
        peer = self._peer
        if peer is None or not self._first:
            self._drop()
            return False
        self._watcher.forget(peer.fileno())
        try:
            peer.settimeout(_TELL_SECONDS)
            peer.send(json.dumps({"t": "exit"}).encode())
        except OSError:
            self._drop()
            return False
        peer.settimeout(None)
        peer.detach()
        self._peer = None
        return True

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        self._drop()
        peer.setblocking(False)
        self._first = False
        self._peer = peer
        self._watcher.watch(peer.fileno(), self._receive)
        self.send(self._greeting())

    def _receive(self) -> None:
        if self._peer is None:
            return
        try:
            data = self._peer.recv(_MESSAGE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop()
            return
        with contextlib.suppress(ValueError):
            self._on_message(json.loads(data))

    def _drop(self) -> None:
        if self._peer is not None:
            self._watcher.forget(self._peer.fileno())
            self._peer.close()
            self._peer = None


def receive_launch(link_fd: int) -> dict[str, Any] | None:
    """Waits for the job; None when the daemon went away without giving one.

    The launch comes as a descriptor of a memory file: it may be larger than a message, and the
    secrets in it touch no disk.
    """
    fds = array.array("i")
    with socket.socket(fileno=os.dup(link_fd)) as link:
        room = socket.CMSG_LEN(fds.itemsize)
        data, ancillary, _, _ = link.recvmsg(len(LAUNCH), room, socket.MSG_CMSG_CLOEXEC)
    if data != LAUNCH or not ancillary:
        return None
    fds.frombytes(ancillary[0][2])
    with os.fdopen(fds[0], "rb") as file:
        launch: dict[str, Any] = json.load(file)
    return launch


def receive_seat(link_fd: int) -> dict[str, Any] | None:
    """After a job: waits for the next seat; None when the daemon wants no other."""
    with socket.socket(fileno=os.dup(link_fd)) as link:
        while data := link.recv(_MESSAGE_BYTES_MAX):
            message: dict[str, Any] = json.loads(data)
            if "group" in message:
                return message
    return None
