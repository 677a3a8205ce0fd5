"""A hostile job in the sandbox: what it tries, and that it gets nothing."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.node_daemon.runtime.port import ExitReason, Runtime
from services.node_daemon.spool import STDERR
from tests.support import runtimes

MIB = runtimes.MIB

REFUSED = "Operation not permitted"

# Each prints what it got, or the name of the error that stopped it.
_CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return 'done' if result >= 0 else os.strerror(ctypes.get_errno())
"""


def attempts(*expressions: str) -> str:
    """A program that prints, per expression, its value or its error."""
    lines = ["import os, socket, subprocess"]
    for expression in expressions:
        lines += [
            "try:",
            f"    print(repr({expression}))",
            "except BaseException as error:",
            "    print('refused', type(error).__name__)",
        ]
    return "\n".join(lines)


async def printed(runtime: Runtime, code: str, **changes: Any) -> list[str]:
    done = await runtimes.run(runtime, runtimes.python(code, **changes))
    assert done.exit.reason is ExitReason.EXITED, done
    return done.lines()


async def test_host_files_are_not_there(sandbox: Runtime, folders: runtimes.Folders) -> None:
    secret = folders.state / "secret"
    secret.write_text("host secret")
    lines = await printed(
        sandbox,
        attempts(
            f"open({str(secret)!r}).read()",
            "open('/etc/shadow').read()",
            "os.listdir('/root/.ssh')",
            "os.listdir('/home')",
            f"os.listdir({str(folders.run)!r})",
            "os.listdir('/sys')",
            "os.listdir('/boot')",
            "sorted(os.listdir('/etc'))",
        ),
    )
    assert all(line.startswith("refused") for line in lines[:7]), lines
    known = {"alternatives", "group", "hostname", "hosts", "ld.so.cache", "nsswitch.conf",
             "passwd", "resolv.conf"}  # fmt: skip
    assert set(eval(lines[7])) <= known  # noqa: S307 our own list, printed by our own program


async def test_host_processes_cannot_be_seen(sandbox: Runtime) -> None:
    code = attempts(
        "sorted(int(name) for name in os.listdir('/proc') if name.isdigit())",
        "os.kill(os.getppid(), 0)",
        f"os.kill({os.getpid()}, 0)",
        "os.readlink('/proc/1/root')",
    )
    lines = await printed(sandbox, code)
    assert eval(lines[0])[-1] < 10  # noqa: S307
    assert lines[2].startswith("refused")


async def test_it_is_nobody_on_the_host_and_has_no_capability(sandbox: Runtime) -> None:
    code = attempts(
        "(os.getuid(), os.getgid(), os.getgroups())",
        "[line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')]",
        "open('/proc/self/uid_map').read().split()",
        "[line.split()[1] for line in open('/proc/self/status') if line.startswith('NoNewPrivs')]",
        "[line.split()[1] for line in open('/proc/self/status') if line.startswith('Seccomp:')]",
    )
    lines = await printed(sandbox, code)
    assert lines[0] in ("(1000, 1000, [])", "(1000, 1000, [1000])")
    assert eval(lines[1]) == ["0" * 16] * 5  # noqa: S307
    assert lines[3:] == ["['1']", "['2']"]


async def test_files_it_makes_belong_to_the_slot(sandbox: Runtime) -> None:
    attempt = await runtimes.begin(
        sandbox, runtimes.python("open('/workspace/artifacts/a', 'w').write('x')")
    )
    await attempt.wait()
    with await attempt.artifacts() as collection:
        owner = os.fstat(collection.files[0].fd).st_uid
    assert owner >= 200_000
    await attempt.release()


async def test_two_jobs_have_two_owners_and_cannot_reach_each_other(sandbox: Runtime) -> None:
    code = (
        "import time; open('/workspace/artifacts/a','w'); print('up', flush=True); time.sleep(600)"
    )
    first = await runtimes.begin(sandbox, runtimes.python(code))
    second = await runtimes.begin(sandbox, runtimes.python(code))
    await runtimes.first_line(first)
    await runtimes.first_line(second)
    owners = set()
    for attempt in (first, second):
        attempt.stop("enough", 0.0)
        with await attempt.artifacts() as collection:
            owners.add(os.fstat(collection.files[0].fd).st_uid)
        await attempt.release()
    assert len(owners) == 2


async def test_the_root_is_read_only(sandbox: Runtime) -> None:
    code = attempts(
        "open('/usr/evil', 'w')",
        "open('/etc/passwd', 'a')",
        "os.mkdir('/evil')",
        "os.unlink('/usr/bin/env')",
        "open('/proc/sys/kernel/hostname', 'w').write('x')",
        "open('/proc/sysrq-trigger', 'w').write('b')",
        "open('/tmp/fine', 'w').write('x')",
        "open('/dev/shm/fine', 'w').write('x')",
    )
    lines = await printed(sandbox, code)
    assert all(line.startswith("refused") for line in lines[:6]), lines
    assert lines[6:] == ["1", "1"]


async def test_dangerous_system_calls_are_refused(sandbox: Runtime) -> None:
    """Numbers for x86-64; on another architecture the filter's own test speaks."""
    if os.uname().machine != "x86_64":
        numbers = {"bpf": 280}
    else:
        numbers = {
            "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "setns": 308,
            "ptrace": 101, "process_vm_readv": 310, "keyctl": 250, "add_key": 248,
            "request_key": 249, "bpf": 321, "userfaultfd": 323, "perf_event_open": 298,
            "io_uring_setup": 425, "kexec_load": 246, "init_module": 175, "finit_module": 313,
            "reboot": 169, "swapon": 167, "open_by_handle_at": 304, "unshare": 272,
            "fsopen": 430, "move_mount": 429, "open_tree": 428, "settimeofday": 164,
        }  # fmt: skip
    code = _CALL + "\n".join(f"print(call({number}, 0, 0, 0, 0, 0))" for number in numbers.values())
    lines = await printed(sandbox, code)
    assert dict(zip(numbers, lines, strict=True)) == dict.fromkeys(
        numbers, "Operation not permitted"
    )


async def test_no_new_user_namespace(sandbox: Runtime) -> None:
    new_user = 0x10000000
    code = _CALL + f"print(call(56, {new_user | 17}, 0, 0, 0, 0)); print(call(435, 0, 0))"
    if os.uname().machine == "x86_64":
        assert await printed(sandbox, code) == [
            "Operation not permitted",
            "Function not implemented",
        ]
    lines = await printed(
        sandbox, attempts("subprocess.run(['unshare', '-U', 'true']).returncode != 0")
    )
    assert lines == ["True"]


async def test_calls_of_another_architecture_kill_it(sandbox: Runtime) -> None:
    """A 32-bit `int 0x80` would slip past a filter that only knows 64-bit numbers."""
    if os.uname().machine != "x86_64":
        return
    code = (
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(bytes.fromhex('b814000000cd80c3'))\n"  # mov eax, 20 (getpid); int 0x80; ret
        "address = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())\n"
    )
    done = await runtimes.run(sandbox, runtimes.python(code))
    assert done.lines() == []
    assert done.exit.signal == 31


async def test_set_user_id_files_give_nothing(sandbox: Runtime) -> None:
    code = (
        "import os, shutil, subprocess\n"
        "shutil.copy('/usr/bin/id', '/workspace/id'); os.chmod('/workspace/id', 0o6755)\n"
        "print(subprocess.check_output(['/workspace/id', '-u', '-n'], text=True).strip())\n"
        "print(subprocess.run(['su', '-c', 'id'], capture_output=True).returncode != 0)\n"
    )
    assert await printed(sandbox, code) == ["job", "True"]


async def test_no_network(sandbox: Runtime) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    code = attempts(
        f"socket.create_connection(('127.0.0.1', {port}), 2)",
        "socket.create_connection(('169.254.169.254', 80), 2)",
        "socket.create_connection(('1.1.1.1', 53), 2)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "[name for _, name in socket.if_nameindex()]",
    )
    with listener:
        lines = await printed(sandbox, code)
    assert all(line.startswith("refused") for line in lines[:5]), lines
    assert lines[5] == "['lo']"


async def test_abstract_sockets_of_the_host_are_out_of_reach(sandbox: Runtime) -> None:
    name = f"\0jg-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(name)
        listener.listen()
        code = f"import socket\nsocket.socket(socket.AF_UNIX).connect({name!r})"
        done = await runtimes.run(sandbox, runtimes.python(code))
    assert "ConnectionRefusedError" in "\n".join(done.lines(STDERR))


async def test_no_descriptor_of_the_shim_is_inherited(sandbox: Runtime) -> None:
    lines = await printed(sandbox, "import os; print(sorted(os.listdir('/proc/self/fd'), key=int))")
    assert lines == ["['0', '1', '2', '3']"]  # 3 is the folder being listed


async def test_its_environment_is_its_own(
    sandbox: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAEMON_SECRET", "canary")
    task = runtimes.python("import os; print(sorted(os.environ))")
    task = replace(task, environment={"MINE": "1", "PATH": "/usr/bin:/bin"})
    done = await runtimes.run(sandbox, task)
    assert "MINE" in done.text
    assert "DAEMON_SECRET" not in done.text


async def test_secrets_show_neither_in_ps_nor_on_disk(
    sandbox: Runtime, folders: runtimes.Folders
) -> None:
    canary = "canary-4f1d6b"
    code = "import time; print('up', flush=True); time.sleep(600)"
    task = replace(runtimes.python(code), environment={"TOKEN": canary})
    attempt = await runtimes.begin(sandbox, task)
    await runtimes.first_line(attempt)
    commands = b""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                commands += (folder / "cmdline").read_bytes()
            except OSError:
                continue
    assert canary.encode() not in commands
    for path in folders.state.rglob("*"):
        if path.is_file() and path.suffix != ".ext4":
            assert canary.encode() not in path.read_bytes()
    attempt.stop("enough", 0.0)
    await attempt.wait()
    await attempt.release()
