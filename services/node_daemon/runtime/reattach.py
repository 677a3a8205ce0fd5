"""Finding the shim of an attempt that a former daemon started. Blocks: for a worker thread."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from services.node_daemon import attempt_files

_TRIES, _PAUSE_SECONDS = 40, 0.05


def reach(folder: Path) -> socket.socket | None:
    """A connection to the shim; None when there is none any more, or when it hangs.

    A shim that has its lock but does not listen is in its first or its last milliseconds, so this
    tries for a moment. One that then still does not listen hangs; its lock will tell of its end.
    """
    lock = folder / attempt_files.LOCK
    for _ in range(_TRIES):
        if not attempt_files.is_locked(lock):
            return None
        link = _connect(folder)
        if link is not None:
            return link
        time.sleep(_PAUSE_SECONDS)
    return None


def _connect(folder: Path) -> socket.socket | None:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # By descriptor: a socket's path may have only 107 bytes, and homes can be deep.
        link.connect(f"/proc/self/fd/{below}/{attempt_files.CTL}")
    except OSError:
        link.close()
        return None
    finally:
        os.close(below)
    link.setblocking(False)
    return link
