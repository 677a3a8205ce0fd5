"""The few Linux calls that Python 3.11 has no name for. Each raises OSError as `os` would.

Standard library only: the zygote loads this.
"""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_NAME = 1, 4, 38, 15
_SYS_OPENAT2 = 437  # the same number on every architecture: it is newer than their unification

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 1, 2, 4, 8
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
MNT_DETACH = 2

MACHINE = os.uname().machine


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _check(result: int, path: str | bytes = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def openat2(dir_fd: int, path: str | bytes, flags: int, resolve: int) -> int:
    """Opens `path` below `dir_fd` under the kernel's own limits on how it may be resolved."""
    raw = os.fsencode(path)
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    number = ctypes.c_long(_SYS_OPENAT2)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    return _check(_LIBC.syscall(number, ctypes.c_int(dir_fd), raw, ctypes.byref(how), size), path)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2); needs CAP_SYS_ADMIN."""
    _check(
        _LIBC.mount(
            source.encode(),
            target.encode(),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            options.encode() or None,
        ),
        target,
    )


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_LIBC.umount2(target.encode(), flags), target)


def die_with_parent(signal_number: int) -> None:
    """Asks for a signal when the *thread* that forked this process ends; call in the child."""
    _check(_LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0))


def no_new_privileges() -> None:
    """From here on no exec can gain privileges; inherited, for good."""
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0))


def name_process(name: str) -> None:
    """What `ps` shows as the command name; at most 15 bytes."""
    _check(_LIBC.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0))
