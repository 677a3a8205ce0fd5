"""How much GPU memory a model needs. docs/vram.md argues the formula and names its sources."""

from __future__ import annotations

import math

GB = 1_000_000_000

# Bytes a parameter takes in each precision; model_size_gb is given at 16 bits, 2 bytes.
PARAMETER_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0}
DEFAULT_PRECISION = "fp16"
SIZE_BYTES = 2.0

# Weights, gradients, master copy and the two moments of Adam, per parameter.
TRAINING_BYTES = {"fp32": 16.0, "fp16": 16.0, "bf16": 16.0, "int8": 10.0}
# One adapter parameter for every hundred of the model, trained as above.
ADAPTER_SHARE = 0.01

# Activations and caches over the resident state: for one item, per further item, at most.
ACTIVATIONS = {"inference": 0.2, "batch": 0.2, "fine-tuning": 0.5, "training": 0.2}
PER_ITEM = 0.05
ACTIVATIONS_MAX = 1.0

# The driver's context and the framework's kernels, on every GPU.
CONTEXT_BYTES = GB // 2


def resident_bytes(model_size_gb: float, precision: str, workload_type: str) -> float:
    """Bytes that stay on the GPU for the whole run: weights and what training adds to them."""
    kind = precision or DEFAULT_PRECISION
    parameters = model_size_gb * GB / SIZE_BYTES
    if workload_type == "training":
        return parameters * TRAINING_BYTES[kind]
    weights = parameters * PARAMETER_BYTES[kind]
    if workload_type == "fine-tuning":
        return weights + parameters * ADAPTER_SHARE * TRAINING_BYTES[kind]
    return weights


def activation_factor(workload_type: str, batch_size: int) -> float:
    """What comes on top, as a share of the resident bytes."""
    share = ACTIVATIONS[workload_type] + PER_ITEM * (max(batch_size, 1) - 1)
    return min(share, ACTIVATIONS_MAX)


def required_vram_bytes(
    model_size_gb: float, precision: str, workload_type: str, batch_size: int, gpu_count: int
) -> int:
    """Bytes that each of `gpu_count` GPUs must have, the model being spread evenly over them.

    0 for a model of no size: nothing is known, so nothing is required.
    """
    if model_size_gb <= 0:
        return 0
    resident = resident_bytes(model_size_gb, precision, workload_type)
    total = resident * (1 + activation_factor(workload_type, batch_size))
    return math.ceil(total / max(gpu_count, 1)) + CONTEXT_BYTES
