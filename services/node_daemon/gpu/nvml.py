"""NVIDIA GPUs, through the driver's management library."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from services.node_daemon.gpu.port import Gpu, GpuSample, GpuUnavailable

# Every CUDA program opens these besides its own GPU's file.
_SHARED_DEVICES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")


class NvmlGpus:
    """See `port.Gpus`. `library` is the pynvml module, or a stand-in with its functions."""

    name = "nvml"
    simulated = False

    def __init__(self, library: Any = None) -> None:
        self._library = library
        self._handles: list[Any] = []
        self._gpus: tuple[Gpu, ...] = ()

    def open(self) -> None:
        if self._library is None:
            import pynvml

            self._library = pynvml
        try:
            self._library.nvmlInit()
            count = self._library.nvmlDeviceGetCount()
            self._handles = [self._library.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
            self._gpus = tuple(self._describe(i, handle) for i, handle in enumerate(self._handles))
        except self._library.NVMLError as error:
            raise GpuUnavailable(
                f"the NVIDIA driver does not answer ({error}); install the driver, or configure"
                " an explicit inventory of simulated GPUs, or none"
            ) from error

    def inventory(self) -> Sequence[Gpu]:
        return self._gpus

    def sample(self) -> Sequence[GpuSample]:
        return tuple(self._sample(i, handle) for i, handle in enumerate(self._handles))

    def close(self) -> None:
        if self._library is not None:
            with contextlib.suppress(self._library.NVMLError):
                self._library.nvmlShutdown()

    def _describe(self, index: int, handle: Any) -> Gpu:
        library = self._library
        minor = library.nvmlDeviceGetMinorNumber(handle)
        return Gpu(
            index=index,
            uuid=_text(library.nvmlDeviceGetUUID(handle)),
            name=_text(library.nvmlDeviceGetName(handle)),
            memory_bytes=int(library.nvmlDeviceGetMemoryInfo(handle).total),
            vendor="nvidia",
            simulated=False,
            driver_version=_text(library.nvmlSystemGetDriverVersion()),
            devices=(f"/dev/nvidia{minor}", *_SHARED_DEVICES),
        )

    def _sample(self, index: int, handle: Any) -> GpuSample:
        library = self._library
        utilisation = self._told(lambda: library.nvmlDeviceGetUtilizationRates(handle).gpu)
        power = self._told(lambda: library.nvmlDeviceGetPowerUsage(handle))
        return GpuSample(
            index=index,
            memory_used_bytes=int(library.nvmlDeviceGetMemoryInfo(handle).used),
            utilisation=None if utilisation is None else utilisation / 100,
            temperature_celsius=self._told(lambda: library.nvmlDeviceGetTemperature(handle, 0)),
            power_watts=None if power is None else power / 1000,
        )

    def _told(self, ask: Callable[[], float]) -> float | None:
        """None for what this model of GPU does not measure."""
        try:
            return float(ask())
        except self._library.NVMLError:
            return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
