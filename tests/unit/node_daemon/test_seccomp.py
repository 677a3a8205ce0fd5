"""The filter, run by a small interpreter of classic BPF: what each call would get."""

from __future__ import annotations

import struct

import pytest

from services.node_daemon import seccomp

KILL, ALLOW, EPERM, ENOSYS = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
CASES = [("x86_64", 0), ("aarch64", 1)]


def verdict(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Runs the program over a struct seccomp_data."""
    code = seccomp.program(machine)
    steps = list(struct.iter_unpack("<HBBI", code))
    padded = [*arguments, *[0] * (6 - len(arguments))]
    known = seccomp.ARCHITECTURES[machine] if arch is None else arch
    data = struct.pack("<IIQ6Q", number, known, 0, *padded)
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = steps[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x06:
            return int(value)
        else:
            compare = {0x15: accumulator == value, 0x35: accumulator >= value,
                       0x45: bool(accumulator & value)}  # fmt: skip
            at += if_true if compare[operation] else if_false


@pytest.mark.parametrize(("machine", "column"), CASES)
def test_every_denied_call_is_denied_and_its_neighbours_are_not(machine: str, column: int) -> None:
    denied = {row[column] for row in seccomp.DENIED.values() if row[column] is not None}
    clone3 = 435
    for number in range(500):
        wanted = EPERM if number in denied else ENOSYS if number == clone3 else ALLOW
        assert verdict(machine, number) == wanted, number


@pytest.mark.parametrize(("machine", "column"), CASES)
def test_clone_may_make_threads_but_no_namespaces(machine: str, column: int) -> None:
    number = (56, 220)[column]
    threads = 0x3D0F00  # what pthread_create asks for
    assert verdict(machine, number, threads) == ALLOW
    assert verdict(machine, number, 17) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, number, flag | 17) == EPERM


@pytest.mark.parametrize(("machine", "column"), CASES)
def test_ioctl_may_not_type_into_a_terminal(machine: str, column: int) -> None:
    number = (16, 29)[column]
    assert verdict(machine, number, 0, 0x5413) == ALLOW
    assert verdict(machine, number, 0, 0x5412) == EPERM
    assert verdict(machine, number, 0, 0x541C) == EPERM
    # The kernel reads 32 bits of the request: a high half must not hide it.
    assert verdict(machine, number, 0, 0x1_0000_5412) == EPERM


def test_other_architectures_are_killed_and_x32_does_not_exist() -> None:
    i386 = 0x40000003
    assert verdict("x86_64", 20, arch=i386) == KILL
    assert verdict("aarch64", 20, arch=0x40000028) == KILL
    assert verdict("x86_64", 0x40000000 | 165) == ENOSYS


def test_an_unknown_machine_is_an_error() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        seccomp.program("riscv64")
