"""The shim's connection to whichever daemon is alive.

The first daemon hands over one end of a SEQPACKET pair at launch. A later one connects to the
`ctl` socket in the attempt's folder and takes the first one's place. The daemon learns of the
shim's end by the end of the connection, so nothing has to be sent for that. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from services.node_daemon.shim_child import Watcher

_MESSAGE_BYTES_MAX = 4096


class Link:
    """At most one daemon at a time; every send is best effort and never blocks."""

    def __init__(
        self,
        fd: int,
        path: str,
        on_message: Callable[[dict[str, Any]], None],
        greeting: Callable[[], dict[str, Any] | None],
    ) -> None:
        self._on_message = on_message
        self._greeting = greeting
        self._peer: socket.socket | None = socket.socket(fileno=fd)
        self._peer.setblocking(False)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener.bind(path)
        self._listener.listen(1)
        self._listener.setblocking(False)

    def register(self, watcher: Watcher) -> None:
        """Joins the loop; before anything else is called."""
        self._watcher = watcher
        watcher.watch(self._listener.fileno(), self._accept)
        if self._peer is not None:
            watcher.watch(self._peer.fileno(), self._receive)

    def send(self, message: dict[str, Any] | None) -> None:
        if self._peer is None or message is None:
            return
        try:
            self._peer.send(json.dumps(message).encode())
        except BlockingIOError:
            return
        except OSError:
            self._drop()

    def close(self) -> None:
        """The daemon sees the end of the connection: the exit is written."""
        self._drop()
        self._watcher.forget(self._listener.fileno())
        self._listener.close()

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        self._drop()
        peer.setblocking(False)
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
