"""The system-call filter of the sandbox: a deny list as classic BPF, made here.

It closes kernel doors that a job has no use for and that have let jobs out before. All else stays
open, because a compute job may use any of the rest; the namespaces, the missing capabilities and
the slot's own uid carry the weight, this filter narrows the kernel's surface behind them.

Another architecture's calls (32-bit calls on x86-64, say) are a way around any filter by number,
so they kill the process. The x32 range answers ENOSYS. A refused call answers EPERM, except
clone3: its flags lie in memory where no filter can look, and ENOSYS makes libc fall back to clone,
whose flags this filter reads.
"""

from __future__ import annotations

import struct

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_AT_NUMBER, _AT_ARCH, _AT_ARG0, _AT_ARG1 = 0, 4, 16, 24
_X32 = 0x40000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: a job gets no further namespaces.
_NEW_NAMESPACES = 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (x86_64, aarch64); None where the architecture has no such call.
DENIED: dict[str, tuple[int | None, int | None]] = {
    # mounts, roots, namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_tree_attr": (467, 467), "statmount": (457, 457),
    "listmount": (458, 458), "fanotify_init": (300, 262),
    # other processes' memory and state
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    # kernel objects with a long record of holes
    "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "lookup_dcookie": (212, 18),
    "vmsplice": (278, 75), "modify_ldt": (154, None), "personality": (135, 92),
    # the machine itself
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "create_module": (174, None), "query_module": (178, None), "get_kernel_syms": (177, None),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "syslog": (103, 116), "vhangup": (153, 58), "nfsservctl": (180, 42),
    "iopl": (172, None), "ioperm": (173, None), "uselib": (134, None), "ustat": (136, None),
    "sysfs": (139, None), "_sysctl": (156, None), "vserver": (236, None),
    # clocks and identity of the host
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
    # placement on the host's memory nodes
    "mbind": (237, 235), "set_mempolicy": (238, 237), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "set_mempolicy_home_node": (450, 450),
}  # fmt: skip
_CLONE, _IOCTL, _CLONE3 = (56, 220), (16, 29), (435, 435)


def program(machine: str) -> bytes:
    """The filter for `machine` (as `uname -m` says), as bwrap's --seccomp reads it.

    Raises ValueError for an architecture that the table does not know.
    """
    if machine not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"no system-call table for {machine}; there is one for {known}")
    column = 0 if machine == "x86_64" else 1
    code = [
        _op(_LD, _AT_ARCH),
        _op(_JEQ, ARCHITECTURES[machine], 1, 0),
        _op(_RET, _KILL),
        _op(_LD, _AT_NUMBER),
    ]
    if machine == "x86_64":
        code += [_op(_JGE, _X32, 0, 1), _op(_RET, _ERRNO | _ENOSYS)]
    code += [_op(_JEQ, _CLONE3[column], 0, 1), _op(_RET, _ERRNO | _ENOSYS)]
    for name in sorted(DENIED):
        number = DENIED[name][column]
        if number is not None:
            code += [_op(_JEQ, number, 0, 1), _op(_RET, _ERRNO | _EPERM)]
    code += _argument_rules(column)
    return b"".join(code)


def _argument_rules(column: int) -> list[bytes]:
    """clone without new namespaces; ioctl without typing into the terminal. Then allow."""
    return [
        _op(_JEQ, _CLONE[column], 0, 3),
        _op(_LD, _AT_ARG0),
        _op(_JSET, _NEW_NAMESPACES, 0, 5),
        _op(_RET, _ERRNO | _EPERM),
        _op(_JEQ, _IOCTL[column], 0, 3),
        _op(_LD, _AT_ARG1),
        _op(_JEQ, _TIOCSTI, 2, 0),
        _op(_JEQ, _TIOCLINUX, 1, 0),
        _op(_RET, _ALLOW),
        _op(_RET, _ERRNO | _EPERM),
    ]


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter; jumps count from the next instruction."""
    return struct.pack("<HBBI", code, if_true, if_false, value)
