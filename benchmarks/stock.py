"""Our steps beside the step of transformers' Trainer: random batches, padded to their longest example.

Trainer needs accelerate, which is no dependency, so `TrainerStep` makes its calls. All take turns in one process. Times
are added up over whole epochs, because grouped batches are of very different lengths.
"""

from collections.abc import Callable

import numpy as np
import torch

from benchmarks import setting as settings
from benchmarks.setting import Setting
from benchmarks.steps import Published, in_turn
from fsd_tune.device import autocast
from fsd_tune.training.distiller import Distiller

_OURS = [(method, batching) for method in ("ce", "fsd_ilg") for batching in ("random", "grouped")]
_STOCK = "Trainer"


class TrainerStep:
    """A step of plain fine-tuning as Trainer makes it with its defaults, but for data that are tokenised already."""

    def __init__(self, setting: Setting, precision: str) -> None:
        run = _run(setting, "ce", "random", precision)
        self._setup, self._schedule, self._model = run.setup, run.schedule, run.model
        self._optimizer = torch.optim.AdamW(run.model.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
        self._rate = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: 1 - step / run.steps_total)
        self._step = 0

    def step(self) -> None:
        """Make the next step."""
        batch = self._setup.batch(self._schedule.rows(self._step))
        with autocast(self._setup.precision, self._setup.device):
            loss = self._model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._rate.step()
        self._optimizer.zero_grad()
        self._step += 1


def _run(setting: Setting, method: str, batching: str, precision: str) -> Distiller:
    _, _, bench = settings.artefacts(setting, method, precision, data_batching=batching)
    return settings.distiller(bench)


def against_trainer(setting: Setting, precision: str, epochs: int, published: bool) -> list[dict[str, object]]:
    """Return the rows of fsd_ilg / Trainer's step, fsd_ilg / plain, and of the published step / ours.

    Args:
        setting: data and sizes.
        precision: float32 or bf16; with float32 alone the published step takes its turns.
        epochs: how often all examples are used; the spread is that of the epochs.
        published: also measure the published step.
    """
    runs = {chosen: _run(setting, *chosen, precision) for chosen in _OURS}
    batches = runs[_OURS[0]].schedule.batches_per_epoch
    steps: dict[str, Callable[[], object]] = {_STOCK: TrainerStep(setting, precision).step}
    steps |= {" ".join(chosen): run.train_step for chosen, run in runs.items()}
    seconds = {
        name: values.reshape(epochs, batches).sum(1)
        for name, values in in_turn(steps, epochs * batches, setting.device).items()
    }
    sizes = f"{setting.device} {precision}, {setting.task}"
    to_stock, to_plain = (0.70, 1.05) if precision == "float32" else (0.75, 1.08)
    note = f"Trainer's step {1e3 * np.median(seconds[_STOCK]) / batches:.0f} ms"
    rows = [
        _row(f"fsd_ilg step, {batching} / Trainer's step, {sizes}", seconds[f"fsd_ilg {batching}"] / seconds[_STOCK],
             to_stock, note)
        for batching in ("random", "grouped")
    ]  # fmt: skip
    rows += [
        _row(f"fsd_ilg step / plain step, both {batching}, {sizes}",
             seconds[f"fsd_ilg {batching}"] / seconds[f"ce {batching}"], to_plain, "")
        for batching in ("random", "grouped")
    ]  # fmt: skip
    if published:
        # Every published step is as long as any other, so a few of them are enough.
        step = np.median(in_turn({"published": Published(setting).step}, 4, setting.device)["published"])
        rows += [
            _row(f"published-style step / ours, {batching}, {sizes}",
                 step * batches / seconds[f"fsd_ilg {batching}"], 8, f"{step:.2f} s", at_least=True)
            for batching in ("random", "grouped")
        ]  # fmt: skip
    return rows


def _row(figure: str, ratios: np.ndarray, goal: float, note: str, at_least: bool = False) -> dict[str, object]:
    value = float(np.median(ratios))
    met = value >= goal if at_least else value <= goal
    words = f">= {goal:g}" if at_least else f"<= {goal:.2f}"
    low, high = float(ratios.min()), float(ratios.max())
    return {"figure": figure, "value": value, "low": low, "high": high, "goal": words, "met": met, "note": note}
