"""One optimiser step of each method beside plain fine-tuning, and beside the published way of doing it."""

import gc
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks import setting as settings
from benchmarks.setting import Setting
from fsd_tune import losses
from fsd_tune.data import splits
from fsd_tune.data.batching import collate
from fsd_tune.models.loading import load_classifier
from fsd_tune.settings import methods
from fsd_tune.training.distiller import Distiller

METHODS = tuple(name for name in methods.METHODS if name != "ce")
_WARM_UP = 3


def _timed(step: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(steps: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, np.ndarray]:
    """Seconds of each step, float [rounds], taken in turns so that a slow moment of the machine meets all.

    The order is drawn for each turn, because what follows the turn's end falls on the first step of the next.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    # A collection visits the modules of all models, which takes longer than a step on a GPU, and falls on the same step
    # of each turn.
    gc.collect()
    gc.disable()
    order = random.Random(0)
    for turn in range(_WARM_UP + rounds):
        for name in order.sample(list(steps), len(steps)):
            taken = _timed(steps[name], device)
            if turn >= _WARM_UP:
                seconds[name].append(taken)
    gc.enable()
    return {name: np.asarray(values) for name, values in seconds.items()}


def ratio(seconds: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """Median, lower and upper quartile of the ratio of neighbours."""
    low, middle, high = np.percentile(seconds / base, [25, 50, 75])
    return float(middle), float(low), float(high)


def against_plain(setting: Setting, precision: str, rounds: int) -> list[dict[str, object]]:
    """A row for each method: its step / the plain fine-tuning step on the same batches."""
    runs: dict[str, Distiller] = {}
    for method in ("ce", *METHODS):
        _, _, bench = settings.artefacts(setting, method, precision)
        runs[method] = settings.distiller(bench)
    seconds = in_turn({name: run.train_step for name, run in runs.items()}, rounds, setting.device)
    rows = []
    for method in METHODS:
        middle, low, high = ratio(seconds[method], seconds["ce"])
        of_ilg = 1.10 if setting.device == "cuda" else 1.05 if precision == "float32" else 1.08
        goal = of_ilg if method == "fsd_ilg" else 1.05
        rows.append(
            {
                "figure": f"{method} step / plain step, {setting.device} {precision}",
                "value": middle,
                "low": low,
                "high": high,
                "goal": f"<= {goal:.2f}",
                "met": middle <= goal,
                "note": f"plain step {1e3 * np.median(seconds['ce']):.1f} ms",
            }
        )
    return rows


def against_host_batches(setting: Setting, rounds: int) -> list[dict[str, object]]:
    """Return a row for each method: its step on data that lie on the GPU / the same with batches from the host."""
    rows = []
    for method, layers in (("ce", "penultimate"), ("fsd_ilg", "penultimate"), ("fsd_ilg", "all")):
        _, _, bench = settings.artefacts(setting, method, "bf16", loss_layers=layers)
        resident = settings.distiller(bench)
        bench.keep_on_host()
        host = settings.distiller(bench)
        seconds = in_turn({"resident": resident.train_step, "host": host.train_step}, rounds, setting.device)
        middle, low, high = ratio(seconds["resident"], seconds["host"])
        rows.append(
            {
                "figure": f"{method} step, layers: {layers}, data on the GPU / batches from the host",
                "value": middle,
                "low": low,
                "high": high,
                "goal": "reported",
                "met": None,
                "note": " against ".join(f"{1e3 * np.median(seconds[way]):.1f} ms" for way in ("resident", "host")),
            }
        )
    return rows


class Published:
    """A step in the published way: live teacher, every batch padded to the maximum, centring by products with H."""

    def __init__(self, setting: Setting) -> None:
        _, _, bench = settings.artefacts(
            setting, "fsd_ilg", "float32", data_padding="published", student_memory_start="published"
        )
        self.run = settings.distiller(bench)
        self.teacher = load_classifier(str(setting.teacher), splits.get_task(setting.task)).to(setting.device).eval()
        assert bench.arrays is not None and bench.arrays.memory is not None
        self.memory = torch.tensor(bench.arrays.memory.centroids).to(setting.device)

    def step(self) -> None:
        run, student = self.run.setup, self.run
        inputs = collate(run.train, student.schedule.rows(student.step), run.device, pad_to=run.train.max_length)
        labels = inputs.pop("labels")
        with torch.no_grad():
            teacher = self.teacher(**inputs, output_hidden_states=True)
        out = student.model(**inputs, output_hidden_states=True)
        ((t, s),) = run.pairs
        own, other = out.hidden_states[s], teacher.hidden_states[t]
        flat_s, flat_t = own.flatten(1), other.flatten(1)
        assert student.memory is not None
        total = (
            0.5 * losses.task_loss(out.logits, labels)
            + 0.5 * losses.kd_loss(teacher.logits, out.logits, 5.0)
            - torch.log(torch.stack([_cka(x, y) for x, y in zip(other, own, strict=True)]).abs().mean() + 1e-8)
            - torch.log(_cka(flat_t, flat_s).abs() + 1e-8)
            - torch.log(_cka(self.memory, student.memory).abs() + 1e-8)
        )
        d_t, d_s = torch.cdist(flat_t, self.memory), torch.cdist(flat_s, student.memory)
        c_t, c_s = (
            torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(m).T
            for x, m in ((flat_t, self.memory), (flat_s, student.memory))
        )
        total = total + 0.5 * ((d_t - d_s) ** 2).mean() + 0.5 * ((c_t - c_s) ** 2).mean()
        total.backward()
        torch.nn.utils.clip_grad_norm_([*student.model.parameters(), student.memory], 1.0)
        student.optimizer.step()
        student.optimizer.zero_grad(set_to_none=True)
        student.step += 1


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    n = len(x)
    h = torch.eye(n, device=x.device) - 1.0 / n
    value: Tensor = ((h @ (x @ x.T) @ h) * (h @ (y @ y.T) @ h)).sum()
    return value


def _cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear CKA as the published code computes it: three HSICs, each with both Gram matrices and both centrings."""
    return _hsic(x, y) / (_hsic(x, x).sqrt() * _hsic(y, y).sqrt())


def against_published(setting: Setting, rounds: int) -> dict[str, object]:
    """Published-style step / our fsd_ilg step, float32."""
    _, _, bench = settings.artefacts(setting, "fsd_ilg", "float32")
    ours = settings.distiller(bench)
    seconds = in_turn({"published": Published(setting).step, "ours": ours.train_step}, rounds, setting.device)
    middle, low, high = ratio(seconds["published"], seconds["ours"])
    return {
        "figure": f"published-style step / ours, {setting.device} float32",
        "value": middle,
        "low": low,
        "high": high,
        "goal": ">= 8" if setting.device == "cpu" else "reported",
        "met": middle >= 8 if setting.device == "cpu" else None,
        "note": f"{np.median(seconds['published']):.2f} s against {np.median(seconds['ours']):.2f} s",
    }
