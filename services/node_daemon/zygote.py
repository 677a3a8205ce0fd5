"""The zygote: a small process that forks a shim per attempt, in under a millisecond.

Starting a new interpreter costs 30 ms of CPU, and forking the daemon itself is not safe (gRPC has
threads). So the daemon starts this once: single-threaded, with everything a shim needs loaded and
nothing else. It reads requests for seats from a SEQPACKET socket, each with two descriptors: what
the seat is to be (a memory file) and the shim's connection to the daemon, over which its job comes.

It ends when the daemon does; the shims it made do not.
"""

from __future__ import annotations

import array
import gc
import os
import signal
import socket
import sys

from services.node_daemon import shim, syscalls

REQUEST = b"seat"
_FDS_PER_REQUEST = 2


def serve(connection: socket.socket) -> None:
    """Forks a shim per request until the other side is gone."""
    syscalls.name_process("jg-zygote")
    # Shims are reaped by the kernel: nobody here waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    while True:
        fds = _receive(connection)
        if fds is None:
            return
        if os.fork() == 0:
            _become_shim(connection, *fds)
        for fd in fds:
            os.close(fd)


def _receive(connection: socket.socket) -> tuple[int, int] | None:
    room = socket.CMSG_LEN(_FDS_PER_REQUEST * array.array("i").itemsize)
    data, ancillary, _, _ = connection.recvmsg(len(REQUEST), room, socket.MSG_CMSG_CLOEXEC)
    if data != REQUEST or not ancillary:
        return None
    fds = array.array("i")
    fds.frombytes(ancillary[0][2])
    return fds[0], fds[1]


def _become_shim(connection: socket.socket, seat_fd: int, link_fd: int) -> None:
    code = 1
    try:
        connection.close()
        os.setsid()  # a Ctrl-C meant for the daemon must not reach the job
        os.dup2(0, 2)  # nor may a surviving shim hold the daemon's terminal or log pipe open
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        shim.run(seat_fd, link_fd)
        code = 0
    except BaseException:
        import traceback

        shim.note_crash(traceback.format_exc())
    finally:
        os._exit(code)


def main() -> None:
    """Run by `launch.Zygote` with the socket's number as the only argument."""
    os.setsid()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
