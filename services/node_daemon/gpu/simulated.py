"""GPUs that are not there, by an explicit inventory. Named simulated wherever they show."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence

from services.node_daemon.gpu.port import Gpu, GpuSample, GpuUnavailable

_ITEM = re.compile(
    r"(?P<model>[A-Za-z0-9][\w .-]*):(?P<size>\d+)(?P<unit>GiB|MiB|GB|MB):(?P<count>\d+)"
)
_UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "GB": 10**9, "MB": 10**6}
_SPACE = uuid.UUID("6a756e67-6c65-4772-8964-677075000000")
COUNT_MAX = 64


def parse_inventory(text: str, node: str = "") -> tuple[Gpu, ...]:
    """Reads "l4:24GiB:4,a100:80GiB:8" (model, memory, count); raises GpuUnavailable otherwise.

    `node` goes into the uuids, so that two simulated machines do not show the same GPU.
    """
    gpus: list[Gpu] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise GpuUnavailable(
                f"cannot read the simulated GPU inventory at {item!r};"
                " write it as MODEL:MEMORY:COUNT, for example l4:24GiB:4"
            )
        memory = int(match["size"]) * _UNITS[match["unit"]]
        for _ in range(int(match["count"])):
            index = len(gpus)
            if index >= COUNT_MAX:
                raise GpuUnavailable(f"a simulated machine has at most {COUNT_MAX} GPUs")
            name = f"{match['model'].upper()} (simulated)"
            identity = f"GPU-{uuid.uuid5(_SPACE, f'{node}/{index}/{name}')}"
            gpus.append(Gpu(index, identity, name, memory, "simulated", True, "simulated"))
    return tuple(gpus)


class SimulatedGpus:
    """See `port.Gpus`."""

    name = "simulated"
    simulated = True

    def __init__(self, inventory: str, node: str = "") -> None:
        self._gpus = parse_inventory(inventory, node)

    def open(self) -> None:
        """Nothing to find: the inventory was given."""

    def inventory(self) -> Sequence[Gpu]:
        return self._gpus

    def sample(self) -> Sequence[GpuSample]:
        return tuple(GpuSample(gpu.index, 0, 0.0) for gpu in self._gpus)

    def close(self) -> None:
        """Nothing was opened."""
