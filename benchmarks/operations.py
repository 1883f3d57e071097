"""Count what a training step asks of a device: operations that compute, and places where the host waits for a GPU.

Nothing is timed, so the numbers are the same on any machine. On a CPU the counter counts what would wait on a GPU; on
pretend CUDA tensors (`tests/helpers/pretend_cuda.py`) it counts copies between host and GPU as well.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import setting as settings
from benchmarks.setting import Setting

# Operations whose result, or the size of whose result, the host must know; decompositions ask whether they converged.
_READS = frozenset(
    {
        "_linalg_eigh", "_linalg_svd", "_local_scalar_dense", "_unique2",
        "allclose", "bincount", "equal", "is_nonzero", "item", "masked_select",
        "nonzero", "nonzero_numpy", "unique_consecutive", "unique_dim",
    }
)  # fmt: skip
# Operations that only describe memory or allocate it.
_NO_WORK = frozenset(
    {
        "_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "detach", "diagonal", "empty", "empty_like",
        "empty_strided", "expand", "lift_fresh", "new_empty", "new_empty_strided", "permute", "select", "slice",
        "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view",
    }
)  # fmt: skip
_OF_INTEREST = ("fsd_tune/", "benchmarks/", "tests/", "transformers/", "torch/optim/", "torch/nn/utils/")


class OperationCounter(TorchDispatchMode):
    """A context that counts operations on the tensors of one kind of device.

    Attributes:
        operations: how often each operation that computes or copies ran. A fused operation counts once.
        waits: how often the host waited, by operation and line of code.
    """

    def __init__(self, device: str = "cpu") -> None:
        """Start with nothing counted.

        Args:
            device: cpu or cuda; values that are read from tensors elsewhere cost no wait.
        """
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._device = device

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        parts = take_apart(self, function, args, kwargs)
        if parts is not NotImplemented:
            return parts
        result = function(*args, **kwargs)
        name = function._schema.name.split("::")[1]
        if self._waits(name, args, kwargs, result):
            self.waits[f"{name} at {_place()}"] += 1
        if name not in _NO_WORK:
            self.operations[name] += 1
        return result

    def _waits(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> bool:
        if name in _READS:
            return self._on_device(args[0])
        if name == "repeat_interleave":
            return self._on_device(args[0]) and kwargs.get("output_size") is None
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            return self._on_device(args[0]) and any(
                isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
            )
        if name in ("_to_copy", "copy_"):
            source = args[0] if name == "_to_copy" else args[1]
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            # A copy to the host always waits, or is read before it is complete.
            crosses = source.device.type != result.device.type
            return crosses and (blocking or result.device.type == "cpu")
        return False

    def _on_device(self, tensor: Tensor) -> bool:
        return tensor.device.type == self._device


def take_apart(mode: TorchDispatchMode, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation that consists of others one by one, so that `mode` sees those.

    In inference mode torch hands operations such as `linear` and `to` to a mode as they are.

    Returns:
        The operation's result; `NotImplemented` if it does not consist of others.
    """
    if function is torch.ops.prim.device.default:
        return NotImplemented
    with mode:
        return function.decompose(*args, **kwargs)


def count(step: Callable[[], object], device: str = "cpu") -> OperationCounter:
    """Call `step` once and return what it asked of the device.

    Args:
        step: for example `Distiller.train_step`; the first steps of a run also pay for what is made once.
        device: cpu or cuda.
    """
    counter = OperationCounter(device)
    with counter:
        step()
    return counter


def table(setting: Setting, methods: tuple[str, ...], precision: str) -> list[dict[str, object]]:
    """Return a row for each method with one layer pair, and for fsd_ilg with all: operations / those of `ce`."""
    rows: list[dict[str, object]] = []
    plain = 0
    cases = [("ce", "penultimate"), *((method, "penultimate") for method in methods), ("fsd_ilg", "all")]
    for method, layers in cases:
        _, _, bench = settings.artefacts(setting, method, precision, loss_layers=layers)
        run = settings.distiller(bench)
        run.train_step()
        operations = sum(count(run.train_step, setting.device).operations.values())
        plain = plain or operations
        goal = method == "fsd_ilg" and setting.device == "cuda"
        value = operations / plain
        rows.append(
            {
                "figure": f"{method} operations a step / ce, layers: {layers}, {setting.device} {precision}",
                "value": value,
                "low": value,
                "high": value,
                "goal": "<= 1.25" if goal else "reported",
                "met": value <= 1.25 if goal else None,
                "note": f"{operations} operations",
            }
        )
    return rows


def _place() -> str:
    """Return the innermost line of this package, its tests, transformers or torch's optimisers."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename != __file__ and any(part in frame.filename for part in _OF_INTEREST):
            return f"{frame.filename.split('site-packages/')[-1]}:{frame.lineno} ({(frame.line or '').strip()})"
    return "the backward pass"
