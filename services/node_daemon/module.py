"""Builds the daemon from its settings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from libs.clock import Clock
from services.node_daemon.config import NodeConfig
from services.node_daemon.daemon import Daemon
from services.node_daemon.gpu.nvml import NvmlGpus
from services.node_daemon.gpu.port import Gpus
from services.node_daemon.gpu.simulated import SimulatedGpus
from services.node_daemon.runtime.docker import DockerConfig, DockerRuntime
from services.node_daemon.runtime.port import Runtime
from services.node_daemon.runtime.sandbox import SandboxConfig, SandboxRuntime
from services.node_daemon.runtime.shimmed import ShimHost
from services.node_daemon.runtime.simulated import SimulatedRuntime
from services.node_daemon.slots import SlotConfig, Slots

_SIMULATED = "simulated:"
# Wiping a used slot goes on while the next lease already starts.
_SPARE_SLOTS = 4


def build(config: NodeConfig, clock: Clock) -> Daemon:
    """The daemon; of it only the GPUs are open. Raises ValueError for a source of GPUs that it does
    not know, and GpuUnavailable for one that does not work here."""
    gpus = make_gpus(config)
    if gpus is not None:
        gpus.open()
    return Daemon(config, make_runtimes(config, gpus, clock), gpus, clock)


def make_gpus(config: NodeConfig) -> Gpus | None:
    """The source of GPUs that `config.gpus` names."""
    if config.gpus in ("", "none"):
        return None
    if config.gpus == "nvml":
        return NvmlGpus()
    if config.gpus.startswith(_SIMULATED):
        return SimulatedGpus(config.gpus.removeprefix(_SIMULATED), node=str(config.home))
    raise ValueError(f"gpus is nvml, none or simulated:<inventory>, not '{config.gpus}'")


def make_runtimes(config: NodeConfig, gpus: Gpus | None, clock: Clock) -> Mapping[str, Runtime]:
    """The runtimes in the order of `config.runtimes`, the node's best first."""
    host = _host(config)
    found: dict[str, Runtime] = {}
    for name in config.runtimes:
        if name == "sandbox":
            found[name] = SandboxRuntime(_sandbox(config, gpus), host)
        elif name == "docker":
            real = gpus.inventory() if gpus is not None and not gpus.simulated else ()
            uuids = {gpu.index: gpu.uuid for gpu in real}
            docker = DockerConfig(config.docker_socket, _tag(config.home), uuids)
            found[name] = DockerRuntime(docker, host)
        else:
            found[name] = SimulatedRuntime(config.home / "simulated", clock)
    return found


def _host(config: NodeConfig) -> ShimHost:
    slots = SlotConfig(
        images=config.home / "slots",
        mounts=_run_folder(config) / "slots",
        slots_max=config.slots + _SPARE_SLOTS,
        ready=config.slots_ready,
        size_bytes=config.slot_bytes,
    )
    return ShimHost(config.home / "attempts", Slots(slots))


def _sandbox(config: NodeConfig, gpus: Gpus | None) -> SandboxConfig:
    return SandboxConfig(
        run_folder=_run_folder(config),
        cgroup_name=f"{config.cgroup_name}/{_tag(config.home)}",
        insecure=config.insecure_sandbox,
        devices={gpu.index: gpu.devices for gpu in gpus.inventory()} if gpus else {},
    )


def _run_folder(config: NodeConfig) -> Path:
    if config.run_folder is not None:
        return config.run_folder
    if os.geteuid() == 0:
        return Path("/run/junglegrid") / _tag(config.home)
    return config.home / "run"


def _tag(home: Path) -> str:
    """Tells the daemons of one machine apart, the same after a restart."""
    return hashlib.sha256(str(home).encode()).hexdigest()[:12]
