"""The docker runtime: one container per attempt, through the Docker API.

The daemon pulls and creates; the shim starts, stays attached and removes (see shim_docker.py, which
says why). The container has the slot's own user, no capabilities, no new privileges, no network, a
read-only root, its slot as /workspace and a /tmp in memory. The engine's own system-call profile
stays on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiodocker
from aiodocker.exceptions import DockerError

from libs.errors import AlreadyExists, InvalidRequest, NotFound, Unavailable
from services.node_daemon.cgroups import Group
from services.node_daemon.runtime.attempt import Order, Record, ShimAttempt
from services.node_daemon.runtime.port import (
    Isolation,
    Phase,
    Prepared,
    Report,
    TaskLaunch,
)
from services.node_daemon.runtime.shimmed import ShimHost
from services.node_daemon.slots import Slot

LABEL = "dev.junglegrid.lease"
_NODE_LABEL = "dev.junglegrid.node"
_PULL_REPORT_SECONDS = 1.0
_TMP_BYTES_MIN = 16 * 1024 * 1024


class ImageNotFound(NotFound):
    """The image is neither on this machine nor to be had from its registry."""

    reason = "IMAGE_NOT_FOUND"


class DockerUnavailable(Unavailable):
    """The container engine does not answer."""

    reason = "DOCKER_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """`socket` is the engine's unix socket; `node` marks this daemon's containers."""

    socket: str = "/var/run/docker.sock"
    node: str = "local"
    gpu_uuids: Mapping[int, str] | None = None


class DockerRuntime:
    """See `port.Runtime`. One event loop only."""

    name = "docker"
    simulated = False

    def __init__(self, config: DockerConfig, host: ShimHost) -> None:
        self._config = config
        self._host = host
        self._client: aiodocker.Docker | None = None
        self._layers: list[Isolation] = []
        self._init = False

    def describe(self) -> Sequence[Isolation]:
        return tuple(self._layers)

    async def open(self) -> None:
        await asyncio.to_thread(self._host.open)
        self._client = aiodocker.Docker(url=f"unix://{self._config.socket}")
        try:
            info = await self._client.system.info()
        except (DockerError, OSError) as error:
            await self._client.close()
            raise DockerUnavailable(
                f"the container engine at {self._config.socket} does not answer ({error});"
                " start it, or set the socket's path"
            ) from error
        self._layers = _layers(info, self._host)
        self._init = shutil.which(str(info.get("InitBinary") or "docker-init")) is not None

    async def adopt(self) -> list[ShimAttempt]:
        attempts = await self._host.adopt(self.name, self._forget)
        await self._remove_strays({attempt.lease_id for attempt in attempts})
        return attempts

    async def prepare(self, launch: TaskLaunch, report: Report) -> Prepared:
        self._host.attempt_folder(launch.lease_id)
        await self._pull(launch.image, report)
        report(Phase.RUNTIME_PREPARATION, "Preparing the container", {"runtime": self.name})
        slot, staging = await self._host.workspace(launch.disk_bytes)
        return Prepared(launch, staging, report, slot)

    async def start(self, prepared: Prepared, deadline_monotonic: float) -> ShimAttempt:
        launch, slot = prepared.launch, prepared.slot
        prepared.report(Phase.CONTAINER_STARTING, "Starting the container", {"runtime": self.name})
        container = await self._create(launch, slot)
        record = Record.of(launch, self.name, slot, Group("none", {}), container)
        child = {"docker_socket": self._config.socket, "container": container}
        spec = self._host.spec(launch, self.name, child)
        try:
            attempt = await self._host.begin(record, Order(spec), deadline_monotonic, self._forget)
        except BaseException:
            await self._remove(container)
            raise
        if attempt.begun.result():
            prepared.report(Phase.RUNNING, "The container is running", {"runtime": self.name})
        return attempt

    async def discard(self, prepared: Prepared) -> None:
        await asyncio.to_thread(self._host.slots.release, prepared.slot)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
        await asyncio.to_thread(self._host.close)

    @property
    def _docker(self) -> aiodocker.Docker:
        assert self._client is not None, "open() was not called"
        return self._client

    async def _pull(self, image: str, report: Report) -> None:
        """Uses the image that is here; else pulls it, telling how far it is once a second."""
        if not image:
            raise InvalidRequest("the docker runtime needs an image")
        try:
            found = await self._docker.images.inspect(image)
        except DockerError as error:
            if error.status != 404:
                raise DockerUnavailable(f"the container engine refused: {error}") from error
        else:
            report(
                Phase.IMAGE_DOWNLOAD, "The image is present", {"image": image, "id": found["Id"]}
            )
            return
        report(Phase.IMAGE_DOWNLOAD, "Pulling the image", {"image": image})
        await self._pull_now(image, report)
        report(Phase.IMAGE_DOWNLOAD, "The image is present", {"image": image})

    async def _pull_now(self, image: str, report: Report) -> None:
        progress = PullProgress()
        told = asyncio.get_running_loop().time()
        try:
            async for line in self._docker.images.pull(image, stream=True):
                if "error" in line:
                    raise ImageNotFound(f"the image {image!r} cannot be pulled: {line['error']}")
                progress.add(line)
                now = asyncio.get_running_loop().time()
                if now - told >= _PULL_REPORT_SECONDS:
                    told = now
                    report(Phase.IMAGE_DOWNLOAD, "Pulling the image", progress.details(image))
        except DockerError as error:
            raise ImageNotFound(
                f"the image {image!r} is not on this node and cannot be pulled: {error.message}"
            ) from error

    async def _create(self, launch: TaskLaunch, slot: Slot) -> str:
        config = container_config(launch, slot, self._config)
        # With an init, the program is not the namespace's first process, which the kernel makes
        # deaf to a SIGTERM that it does not handle; and orphans are reaped.
        config["HostConfig"]["Init"] = self._init
        try:
            made = await self._docker.containers.create(config, name=f"jg-{launch.lease_id}")
        except DockerError as error:
            if error.status == 409:
                text = f"lease {launch.lease_id} was started on this node before"
                raise AlreadyExists(text) from error
            raise InvalidRequest(f"the container cannot be created: {error.message}") from error
        return str(made.id)

    async def _forget(self, record: Record) -> None:
        if record.container:
            # An engine that is away cannot be asked. The shim has killed the container by then,
            # and what is left of it is removed as a stray when the engine is back.
            with contextlib.suppress(DockerUnavailable):
                await self._remove(record.container)

    async def _remove(self, container: str) -> None:
        """Removes it, killing it if it runs. One that is gone, or going, is fine."""
        try:
            await self._docker.containers.container(container).delete(force=True, v=True)
        except DockerError as error:
            if error.status not in (404, 409):
                raise DockerUnavailable(f"the container could not be removed: {error}") from error

    async def _remove_strays(self, known: set[str]) -> None:
        """Containers of leases that left no folder: a daemon died between create and launch."""
        label = f"{_NODE_LABEL}={self._config.node}"
        for found in await self._docker.containers.list(all=True, filters={"label": [label]}):
            if found["Labels"].get(LABEL) not in known:
                await self._remove(found.id)


class PullProgress:
    """Adds up what the engine tells of each layer."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()

    def add(self, line: Mapping[str, Any]) -> None:
        layer, detail = line.get("id"), line.get("progressDetail") or {}
        if not layer:
            return
        if line.get("status") in ("Pull complete", "Already exists"):
            self._done.add(layer)
        if line.get("status") == "Downloading" and detail.get("total"):
            self._layers[layer] = (int(detail.get("current", 0)), int(detail["total"]))

    def details(self, image: str) -> dict[str, Any]:
        return {
            "image": image,
            "layers_done": len(self._done),
            "layers_total": len(self._done | set(self._layers)),
            "bytes_done": sum(done for done, _ in self._layers.values()),
            "bytes_total": sum(total for _, total in self._layers.values()),
        }


def container_config(launch: TaskLaunch, slot: Slot, config: DockerConfig) -> dict[str, Any]:
    """What the engine is asked for. The image's entrypoint stays; `argv` replaces its command."""
    basic = {"HOME": "/workspace", "TMPDIR": "/tmp", "PYTHONUNBUFFERED": "1"}
    environment = {**basic, **launch.environment}
    wanted: dict[str, Any] = {
        "Image": launch.image,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "User": f"{slot.uid}:{slot.uid}",
        "WorkingDir": "/workspace",
        "AttachStdout": True,
        "AttachStderr": True,
        "Labels": {LABEL: launch.lease_id, _NODE_LABEL: config.node},
        "NetworkDisabled": True,
        "HostConfig": _host_config(launch, slot, config),
    }
    if launch.argv:
        wanted["Cmd"] = list(launch.argv)
    return wanted


def _host_config(launch: TaskLaunch, slot: Slot, config: DockerConfig) -> dict[str, Any]:
    scratch = max(launch.memory_bytes // 2, _TMP_BYTES_MIN)
    bind = {"Type": "bind", "Source": str(slot.workspace), "Target": "/workspace"}
    host: dict[str, Any] = {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Mounts": [bind],
        "Tmpfs": {"/tmp": f"rw,nosuid,nodev,size={scratch}"},
        "ShmSize": scratch,
        "IpcMode": "private",
        # Output reaches the spool by attachment; a second copy would only fill the disk.
        "LogConfig": {"Type": "none"},
        "AutoRemove": False,
    }
    if launch.memory_bytes:
        host |= {"Memory": launch.memory_bytes, "MemorySwap": launch.memory_bytes}
    if launch.cpu_millis:
        host["NanoCpus"] = launch.cpu_millis * 1_000_000
    if launch.pids_max:
        host["PidsLimit"] = launch.pids_max
    uuids = config.gpu_uuids or {}
    devices = [uuids[index] for index in launch.gpu_indices if index in uuids]
    if devices:
        request = {"Driver": "nvidia", "DeviceIDs": devices, "Capabilities": [["gpu"]]}
        host["DeviceRequests"] = [request]
    return host


def _layers(info: Mapping[str, Any], host: ShimHost) -> list[Isolation]:
    options = [str(option) for option in info.get("SecurityOptions") or ()]
    seccomp = any("seccomp" in option for option in options)
    return [
        Isolation("container", True, f"docker {info.get('ServerVersion', '?')}"),
        Isolation("seccomp", seccomp, "the engine's profile" if seccomp else "engine without it"),
        Isolation("cgroup_memory", bool(info.get("MemoryLimit")), str(info.get("CgroupVersion"))),
        Isolation("cgroup_pids", bool(info.get("PidsLimit")), str(info.get("CgroupVersion"))),
        Isolation("cgroup_cpu", bool(info.get("CpuCfsQuota")), str(info.get("CgroupVersion"))),
        Isolation("slot_user", os.geteuid() == 0, "own user id per job"),
        Isolation("workspace_limit", host.slots.limited, host.slots.kind),
    ]
