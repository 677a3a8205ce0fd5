"""A daemon reduced to one attempt, as a process that a test can kill.

    python -m tests.support.attempt_daemon STATE RUN KIND SOCKET LEASE_SECONDS CODE

Starts CODE under the runtime KIND, prints a line when it runs, and then only waits.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from services.node_daemon.runtime.port import Runtime
from tests.support import runtimes


async def main() -> None:
    state, run, kind, socket, lease, code = sys.argv[1:]
    folders = runtimes.Folders(Path(state), Path(run))
    runtime: Runtime = (
        runtimes.sandbox(folders) if kind == "sandbox" else runtimes.docker(folders, socket)
    )
    await runtime.open()
    await runtime.adopt()
    prepared = await runtime.prepare(
        runtimes.python(code, lease_id="lease_kept", disk_bytes=48 * runtimes.MIB), runtimes.Told()
    )
    await runtime.start(prepared, time.monotonic() + float(lease))
    sys.stdout.write("running\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
