"""CUDA tensors without a GPU: FakeTensorMode on `cuda`, for a process of its own.

A fake tensor has shape, dtype and device but no values, and an operation on tensors of two devices, or on dtypes that
do not go together, raises as on a GPU. A build of torch without CUDA lacks what autograd asks of CUDA, its device guard
and its hooks. `install` provides both, in the way torch itself does on a machine without a GPU. It must run before the
first backward pass of the process and cannot be undone, so tests start a process for it.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.operations import take_apart

CUDA = torch.device("cuda")
_CUDA_INDEX = 1  # c10::DeviceType::CUDA
_SLOTS = 64  # more than any of these classes has virtual functions
_PRODUCTS = frozenset({"addmm", "addmm_", "addmv", "baddbmm", "bmm", "convolution", "dot", "index_add_", "mm", "mv"})
_kept: list[Any] = []


def _function(value: int) -> int:
    """The address of a C function that returns `value`, whatever its arguments."""
    made = ctypes.CFUNCTYPE(ctypes.c_int8)(lambda: value)
    _kept.append(made)
    address = ctypes.cast(made, ctypes.c_void_p).value
    assert address is not None
    return address


def _install_guard(libraries: Path) -> None:
    """Let torch install its guard that does nothing; it does so where a guard is present and counts no devices."""
    registry = (ctypes.c_void_p * 32).in_dll(
        ctypes.CDLL(str(libraries / "libc10.so")), "_ZN3c104impl26device_guard_impl_registryE"
    )
    table = (ctypes.c_void_p * _SLOTS)(*[_function(0)] * _SLOTS)
    guard = ctypes.c_void_p(ctypes.addressof(table))
    registry[_CUDA_INDEX] = ctypes.addressof(guard)
    torch._C._ensureCUDADeviceGuardSet()
    assert registry[_CUDA_INDEX] != ctypes.addressof(guard), "torch has not replaced the guard"


def _install_hooks(libraries: Path) -> None:
    """Make torch's hooks say that CUDA is there, and no to every other question."""
    get = ctypes.CDLL(str(libraries / "libtorch_cpu.so"))["_ZN2at6detail12getCUDAHooksEv"]
    get.restype = ctypes.c_void_p
    hooks = ctypes.cast(get(), ctypes.POINTER(ctypes.c_void_p))
    table = (ctypes.c_void_p * _SLOTS)(*[_function(0)] * _SLOTS)
    _kept.append(table)
    hooks[0] = ctypes.addressof(table)
    yes = _function(1)
    # Where the question stands in the table differs by version.
    for slot in range(_SLOTS):
        before, table[slot] = table[slot], yes
        found = torch._C._accelerator_getAccelerator()
        if found is not None and found.type == "cuda":
            return
        table[slot] = before
    raise AssertionError("torch asks another way whether CUDA is there")


def _numpy(tensor: torch.Tensor) -> Any:
    """Stands for `Tensor.numpy`: made-up values for a fake tensor, which must be on the CPU."""
    if not isinstance(tensor, FakeTensor):
        return _real_numpy(tensor)
    assert tensor.device.type == "cpu", f"numpy() of a tensor on {tensor.device}"
    assert not tensor.requires_grad, "numpy() of a tensor with gradient"
    if not tensor.dtype.is_floating_point:
        return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    assert tensor.dtype != torch.bfloat16, "NumPy has no bfloat16"
    values = np.random.default_rng(0).standard_normal(tuple(tensor.shape))
    return values.astype(str(tensor.dtype).removeprefix("torch."))


_real_numpy = torch.Tensor.numpy


def _tolist(tensor: torch.Tensor) -> Any:
    """Stands for `Tensor.tolist`, as `_numpy`."""
    return _numpy(tensor).tolist()


class _SameDtypes(TorchDispatchMode):
    """Raises for products of tensors of different dtypes, which fake tensors let pass."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        parts = take_apart(self, function, args, kwargs or {})
        if parts is not NotImplemented:
            return parts
        name = function._schema.name.split("::")[1]
        if name in _PRODUCTS:
            found = [
                str(value.dtype) for value in args if isinstance(value, torch.Tensor) and value.is_floating_point()
            ]
            if len({*found}) > 1:
                raise RuntimeError(f"{name} of {' and '.join(found)}")
        return function(*args, **(kwargs or {}))


def _move(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Stands for `Module.to`, which cannot change the device of fake parameters in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = parameter.detach().to(device)
                part._parameters[name] = torch.nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device)
    return module


def install() -> None:
    """Prepare this process for `pretending`."""
    from transformers import PreTrainedModel

    if not torch.backends.cuda.is_built():
        libraries = Path(torch.__file__).parent / "lib"
        _install_guard(libraries)
        _install_hooks(libraries)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True
    torch.cuda.get_rng_state = lambda device="cuda": torch.zeros(16, dtype=torch.uint8, device="cpu")
    torch.cuda.set_rng_state = lambda new_state, device="cuda": None
    torch.Tensor.pin_memory = lambda tensor, *_: tensor  # type: ignore[method-assign]
    torch.Tensor.numpy = _numpy  # type: ignore[method-assign, assignment]
    FakeTensor.tolist = _tolist  # type: ignore[method-assign, assignment]
    # It reads values of the weights that it makes.
    torch.nn.init._no_grad_trunc_normal_ = lambda tensor, *_, **__: tensor
    torch.nn.Module.to = PreTrainedModel.to = _move  # type: ignore[method-assign, assignment]


@contextmanager
def pretending() -> Iterator[None]:
    """A context in which all tensors are fake: those of the CPU, and those of a GPU that is not there."""
    with FakeTensorMode(allow_non_fake_inputs=True), _SameDtypes():
        yield
