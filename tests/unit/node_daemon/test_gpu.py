"""GPU sources: an inventory that is named simulated, and NVML by a stand-in for its library."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.node_daemon.gpu.nvml import NvmlGpus
from services.node_daemon.gpu.port import GpuUnavailable
from services.node_daemon.gpu.simulated import SimulatedGpus, parse_inventory

GIB = 1 << 30


def test_an_inventory_names_every_gpu_simulated() -> None:
    gpus = parse_inventory("l4:24GiB:2, A100 SXM:80GB:1", node="n1")
    assert [(gpu.index, gpu.name, gpu.memory_bytes) for gpu in gpus] == [
        (0, "L4 (simulated)", 24 * GIB),
        (1, "L4 (simulated)", 24 * GIB),
        (2, "A100 SXM (simulated)", 80 * 10**9),
    ]
    assert all(gpu.simulated and gpu.vendor == "simulated" and not gpu.devices for gpu in gpus)


def test_uuids_are_stable_and_differ_between_gpus_and_nodes() -> None:
    again = [gpu.uuid for gpu in parse_inventory("l4:24GiB:2", "n1")]
    assert again == [gpu.uuid for gpu in parse_inventory("l4:24GiB:2", "n1")]
    other = [gpu.uuid for gpu in parse_inventory("l4:24GiB:2", "n2")]
    assert len({*again, *other}) == 4


@pytest.mark.parametrize("text", ["l4", "l4:24:4", "l4:GiB:4", "l4:24GiB:x", "l4:24GiB:100"])
def test_a_bad_inventory_says_how_to_write_it(text: str) -> None:
    with pytest.raises(GpuUnavailable):
        SimulatedGpus(text)


def test_an_empty_inventory_is_a_machine_without_gpus() -> None:
    assert SimulatedGpus("").inventory() == ()


class NvmlError(Exception):
    pass


def library(**changes: Any) -> Any:
    """pynvml's functions, for one GPU that cannot tell its power."""

    def refuse(*_: Any) -> None:
        raise NvmlError("Not Supported")

    functions: dict[str, Any] = {
        "NVMLError": NvmlError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMinorNumber": lambda handle: 3,
        "nvmlDeviceGetUUID": lambda handle: b"GPU-1",
        "nvmlDeviceGetName": lambda handle: "NVIDIA L4",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=24 * GIB, used=GIB),
        "nvmlSystemGetDriverVersion": lambda: "550.1",
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=50),
        "nvmlDeviceGetTemperature": lambda handle, sensor: 60,
        "nvmlDeviceGetPowerUsage": refuse,
    }
    return SimpleNamespace(**{**functions, **changes})


def test_nvml_tells_name_memory_and_the_files_of_each_gpu() -> None:
    gpus = NvmlGpus(library())
    gpus.open()
    (gpu,) = gpus.inventory()
    assert (gpu.name, gpu.uuid, gpu.memory_bytes) == ("NVIDIA L4", "GPU-1", 24 * GIB)
    assert not gpu.simulated
    assert gpu.devices[0] == "/dev/nvidia3"
    (sample,) = gpus.sample()
    assert (sample.memory_used_bytes, sample.utilisation, sample.power_watts) == (GIB, 0.5, None)
    gpus.close()


def test_a_machine_without_a_driver_is_told_what_to_do() -> None:
    def fail() -> None:
        raise NvmlError("Driver Not Loaded")

    with pytest.raises(GpuUnavailable, match=r"Driver Not Loaded.*install the driver"):
        NvmlGpus(library(nvmlInit=fail)).open()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a driver")
@pytest.mark.allow_skip(reason="the message of a machine without a driver")
def test_the_real_library_tells_that_there_is_no_driver() -> None:
    with pytest.raises(GpuUnavailable, match="driver"):
        NvmlGpus().open()


@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA driver here")
@pytest.mark.allow_skip(reason="needs an NVIDIA GPU")
def test_the_real_library_finds_the_gpus() -> None:
    gpus = NvmlGpus()
    gpus.open()
    assert all(gpu.memory_bytes > 0 for gpu in gpus.inventory())
    gpus.close()
