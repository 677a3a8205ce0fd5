"""Opens the sandbox runtime as a user without any privilege, and prints what came of it as JSON.

python -m tests.support.unprivileged secure|insecure
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from libs.errors import GridError
from services.node_daemon.runtime.sandbox import SandboxConfig, SandboxRuntime
from tests.support import runtimes


async def main(insecure: bool) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as base:
        folders = runtimes.Folders(Path(base, "state"), Path(base, "run"))
        config = SandboxConfig(run_folder=folders.run, insecure=insecure)
        runtime = SandboxRuntime(config, runtimes.host(folders))
        async with runtimes.opened(runtime):
            await runtime.adopt()
            missing = [layer.layer for layer in runtime.describe() if not layer.present]
            told: dict[str, object] = {"euid": os.geteuid(), "missing": missing}
            try:
                done = await runtimes.run(runtime, runtimes.python("print('ran')"))
            except GridError as error:
                return {**told, "reason": error.reason, "message": error.message}
            return {**told, "lines": done.lines(), "code": done.exit.code}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1] == "insecure"))))
