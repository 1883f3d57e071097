"""Where a run computes and in which precision."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.errors import InputError


def select_device(device: str = "auto", elsewhere: bool = False) -> torch.device:
    """`auto` is cuda where there is one.

    Args:
        device: auto, cpu or cuda.
        elsewhere: other machines compute, whose devices are not seen from here: cuda is taken at its word.

    Raises:
        InputError: cuda is asked for where there is none.
    """
    if device == "cuda" and not elsewhere and not torch.cuda.is_available():
        raise InputError("--device: found cuda, but this machine has no CUDA device that torch sees; use cpu.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively (avx512_bf16 or AMX); emulated, it would be slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` to bf16 where the device runs it natively, else float32; a GPU that is elsewhere is taken to do so."""
    if precision != "auto":
        return precision
    if device.type == "cuda" and not torch.cuda.is_available():
        return "bf16"
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_bf16()
    return "bf16" if native else "float32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a model's forward pass runs; `precision` is bf16 or float32."""
    assert precision in ("bf16", "float32"), precision
    if precision == "float32":
        return nullcontext()
    # The cast weights change every step: caching them across the context only costs memory at evaluation.
    return torch.autocast(device.type, dtype=torch.bfloat16)


def send(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device; to a GPU from pinned memory, so that the host need not wait for the copy."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
