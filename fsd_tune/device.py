"""Choose the device and the precision of a run."""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.errors import InputError


def select_device(device: str = "auto", remote: bool = False) -> torch.device:
    """Return the device that a setting names.

    Args:
        device: auto (cuda if available), cpu or cuda.
        remote: true if other machines compute; cuda is then accepted without looking for it on this machine.

    Raises:
        InputError: `device` is unknown, or cuda although this machine has none.
    """
    if device == "cuda" and not remote and not torch.cuda.is_available():
        raise InputError("--device: found cuda, but this machine has no CUDA device that torch sees; use cpu.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(device)
    except RuntimeError:
        raise InputError(f"--device: found {device}, but must be auto, cpu or cuda.") from None


@cache
def cpu_has_bf16() -> bool:
    """Return true if the processor multiplies bfloat16 natively (avx512_bf16 or AMX); emulation would be slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_precision(precision: str, device: torch.device, native_bf16: bool | None = None) -> str:
    """Return the precision that a setting names.

    Args:
        precision: auto, float32 or bf16. auto is bf16 if the device multiplies it natively, else float32, because
            emulation (on a T4 or V100) is slower than float32.
        device: the device that computes.
        native_bf16: whether it multiplies bfloat16 natively; None if it is a device of this machine.
    """
    if precision != "auto":
        return precision
    if native_bf16 is None:
        cuda = device.type == "cuda"
        native_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else cpu_has_bf16()
    return "bf16" if native_bf16 else "float32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context for a model's forward pass.

    Args:
        precision: bf16 or float32.
        device: the device of the model.

    Returns:
        torch's autocast to bfloat16; a context that does nothing for float32.
    """
    assert precision in ("bf16", "float32"), precision
    if precision == "float32":
        return nullcontext()
    # The weights change every step, so caching their casts beyond one context would only cost memory.
    return torch.autocast(device.type, dtype=torch.bfloat16)


def compute_deterministically() -> None:
    """Make torch compute the same bits in every run on a GPU, for the rest of this process.

    Some of its kernels otherwise add in an order that changes from run to run. On the CPU runs are equal anyway.
    """
    # Read when cuBLAS is first used: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)


def send(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device. A copy to a GPU uses pinned memory, so that the host does not wait for it.

    Args:
        array: an array of any shape and dtype.
        device: the target.

    Returns:
        A tensor of the same shape and dtype; on the CPU it shares the array's memory.
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
