"""Seats kept ready: shims whose parked child waits in a control group of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import zlib
from collections import deque
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

from services.node_daemon.cgroups import Group, Layout
from services.node_daemon.launch import Zygote, is_taken

# A shim that has served this many jobs is replaced: whatever it leaked goes with it.
_USES_MAX = 500


class Seat(NamedTuple):
    """Closing `link` without giving a job ends the shim and removes the group."""

    link: socket.socket
    group: Group
    uses: int


class Seats:
    """A few seats, so that a job does not wait for its control group. Use from one thread.

    `owner` is the folder of this daemon's attempts: it is in the groups' names, so that a daemon
    sweeps only its own. `ready` seats are made beforehand, up to `kept` of those used wait again.
    """

    def __init__(
        self, zygote: Zygote, layout: Layout, owner: Path, *, ready: int, kept: int
    ) -> None:
        self._open = True
        self._kept = kept
        self._zygote = zygote
        self._layout = layout
        self._ready = ready
        self._owner = f"{zlib.crc32(str(owner).encode()):08x}"
        self._life = os.urandom(4).hex()
        self._numbers = itertools.count(1)
        self._seats: deque[Seat] = deque()

    def take(self) -> Seat:
        """A seat that is ready, or one that is only now being made. Raises OSError."""
        while self._seats:
            seat = self._seats.popleft()
            if is_taken(seat.link):
                return seat
            seat.link.close()
        return self._make()

    def refill(self) -> None:
        """Asks for what is missing; returns at once."""
        while len(self._seats) < self._ready:
            self._seats.append(self._make())

    def give_back(self, seat: Seat) -> None:
        """Takes back the shim of a job that ended, for another job, or lets it go."""
        if self._open and len(self._seats) < self._kept and seat.uses < _USES_MAX:
            group = self._next_group()
            message = json.dumps({"group": group.to_json()}).encode()
            with contextlib.suppress(OSError):
                seat.link.send(message)
                self._seats.append(Seat(seat.link, group, seat.uses + 1))
                return
        seat.link.close()

    def close(self) -> None:
        self._open = False
        while self._seats:
            self._seats.popleft().link.close()

    def sweep(self, kept: Container[str]) -> None:
        """Ends and removes groups of this daemon's former lives that no attempt in `kept` has."""
        bases = dict.fromkeys(self._layout.trees.values())
        names = {path.name for base in bases for path in Path(base).glob(f"{self._owner}-*")}
        for name in sorted(names):
            if name not in kept and not name.startswith(f"{self._owner}-{self._life}-"):
                group = self._layout.group(name)
                group.kill()
                group.remove()

    def _make(self) -> Seat:
        group = self._next_group()
        return Seat(self._zygote.seat(group), group, 0)

    def _next_group(self) -> Group:
        return self._layout.group(f"{self._owner}-{self._life}-{next(self._numbers)}")
