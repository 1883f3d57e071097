"""Operations of one optimiser step: what a GPU's host has to launch."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import setting as settings
from benchmarks.setting import Setting


class _Count(TorchDispatchMode):
    """Counts the operations that compute; views and shapes launch nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [output.alias_info for output in function._schema.returns]
        self.operations += not any(alias is not None and not alias.is_write for alias in aliases)
        return function(*args, **(kwargs or {}))


def of_step(run: Any) -> int:
    """Return the operations of the next optimiser step of a distiller."""
    run.train_step()
    with _Count() as count:
        run.train_step()
    return int(count.operations)


def table(setting: Setting, methods: tuple[str, ...], precision: str) -> list[dict[str, object]]:
    """A row for each method, with one layer pair and for fsd_ilg with all pairs: operations / those of `ce`."""
    rows: list[dict[str, object]] = []
    plain = 0
    cases = [("ce", "penultimate"), *((method, "penultimate") for method in methods), ("fsd_ilg", "all")]
    for method, layers in cases:
        _, _, bench = settings.artefacts(setting, method, precision, loss_layers=layers)
        operations = of_step(settings.distiller(bench))
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
