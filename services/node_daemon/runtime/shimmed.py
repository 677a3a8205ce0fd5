"""What the sandbox and docker runtimes share: attempts that run under a shim."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from libs.errors import AlreadyExists, InvalidRequest, Unavailable
from services.node_daemon import attempt_files
from services.node_daemon.collect import CollectLimits
from services.node_daemon.launch import Zygote, give_job
from services.node_daemon.runtime.attempt import Forget, Order, Places, Record, ShimAttempt
from services.node_daemon.runtime.port import Staging, TaskLaunch
from services.node_daemon.slots import Slot, Slots

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


class ShimHost:
    """What all attempts of one daemon share: their folders, the slots, the zygote."""

    def __init__(
        self,
        folder: Path,
        slots: Slots,
        *,
        grace_seconds: float = 10.0,
        collect_limits: CollectLimits | None = None,
    ) -> None:
        self.folder = folder
        self.slots = slots
        self.zygote = Zygote()
        self.grace_seconds = grace_seconds
        self._places = Places(slots, grace_seconds, collect_limits or CollectLimits())

    def open(self) -> None:
        """Starts what the attempts share; blocks. Several runtimes may call it."""
        self.zygote.start()
        self.slots.open()

    def close(self) -> None:
        """Gives back what no running attempt uses; blocks."""
        self.zygote.close()
        self.slots.close()

    def attempt_folder(self, lease_id: str) -> Path:
        """Raises InvalidRequest for an id that is no plain name."""
        if not _NAME.fullmatch(lease_id):
            raise InvalidRequest("the lease id is not a plain name of at most 80 characters")
        return self.folder / lease_id

    def spec(self, launch: TaskLaunch, runtime: str, child: Mapping[str, Any]) -> dict[str, Any]:
        """The shim's whole order; it travels in memory only."""
        return {
            "folder": str(self.attempt_folder(launch.lease_id)),
            "runtime": runtime,
            "log_bytes_max": launch.log_bytes_max,
            "timeout_seconds": launch.timeout_seconds,
            "grace_seconds": self.grace_seconds,
            "child": dict(child),
        }

    async def workspace(self, disk_bytes: int) -> tuple[Slot, Staging]:
        """A slot with the job's folders in it; raises NoSlotFree, or OSError."""
        slot = self.slots.acquire_ready(disk_bytes)
        if slot is None:
            slot = await asyncio.to_thread(self.slots.acquire, disk_bytes)
        staging = Staging(slot.workspace, slot.uid, slot.uid)
        for folder in (staging.inputs, staging.scripts, staging.artifacts):
            folder.mkdir()
            if os.geteuid() == 0:
                os.chown(folder, slot.uid, slot.uid)
        return slot, staging

    async def begin(
        self, record: Record, order: Order, deadline: float, forget: Forget
    ) -> ShimAttempt:
        """Gives the job to a shim; returns once the program runs, or is known not to."""
        folder = self.attempt_folder(record.lease_id)
        try:
            folder.mkdir(parents=True, mode=0o700)
        except FileExistsError:
            raise AlreadyExists(
                f"lease {record.lease_id} was started on this node before"
            ) from None
        attempt_files.write_cell(folder / attempt_files.DEADLINE, int(deadline * 1e9))
        attempt_files.write_json(folder / attempt_files.LAUNCH, asdict(record))
        attempt = ShimAttempt(self._places, record, folder, forget)
        attempt.give_back = order.give_back
        try:
            seat = order.seat or self.zygote.seat(None)
            attempt.follow(seat)
            give_job(seat, order.spec)
        except OSError as error:
            attempt.unfollow()
            shutil.rmtree(folder)
            raise Unavailable(f"no shim could be started on this node: {error}") from error
        attempt.arm(deadline)
        await attempt.begun
        return attempt

    async def adopt(self, runtime: str, forget: Forget) -> list[ShimAttempt]:
        """Every attempt of `runtime` that has a folder, with its slot kept."""
        found = []
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            raw = attempt_files.read_json(folder / attempt_files.LAUNCH)
            if raw is None:
                shutil.rmtree(folder)  # its shim was not asked for yet
            elif raw["runtime"] == runtime:
                record = Record(**raw)
                self.slots.keep(record.slot_index, record.slot_bytes)
                attempt = ShimAttempt(self._places, record, folder, forget)
                await attempt.take_over()
                found.append(attempt)
        return found
