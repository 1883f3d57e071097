"""Train and evaluate one student. Knows nothing of Ray: a single run, a trial and a teacher's fine-tuning share it.

AdamW without decay on biases and LayerNorm, linear schedule, gradient norm clipped at 1 (method.md, "The terms").
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune import losses
from fsd_tune.data.batching import TokenizedSplit, collate, epoch_order, inputs_for
from fsd_tune.data.splits import Task, evaluate
from fsd_tune.device import autocast
from fsd_tune.memory.targets import TeacherTargets
from fsd_tune.models.inference import predict
from fsd_tune.settings.methods import TERMS, term_weights
from fsd_tune.storage import checkpoints

_CLIP = 1.0
# The terms that compare one layer of the teacher with one of the student: name, and loss(teacher, student, mask) of
# hidden states [B, n, H]. Each is the mean over the layer pairs.
PAIRED: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    name: getattr(losses, term.loss) for name, term in TERMS.items() if term.loss
}


@dataclass(frozen=True)
class TrainingSetup:
    """What a training run is made of, beside the model.

    Attributes:
        task: gives labels and metrics.
        train, dev: tokenised splits.
        config: flat: `method`, its hyperparameters and the optimisation ones.
        source: the teacher's part of each batch; None for `ce`.
        pairs: (t, s) of the terms of `PAIRED`.
        memory_layer: the student's `hidden_states` index of L_G.
        distance: raw or relative.
        padding: masked or published.
        reports: evaluations, at equal fractions of the steps.
        seed: of batch order and dropout.
        precision: bf16 or float32.
        device: where it trains.
    """

    task: Task
    train: TokenizedSplit
    dev: TokenizedSplit
    config: Mapping[str, Any]
    source: TeacherTargets | None
    pairs: tuple[tuple[int, int], ...]
    memory_layer: int
    distance: str
    padding: str
    reports: int
    seed: int
    precision: str
    device: torch.device


class Distiller:
    """One run: `advance` trains to the next report; `save` and `load` continue it elsewhere as if uninterrupted.

    Attributes:
        logits: the last evaluation's, float32 [dev examples, C]; None before the first.
    """

    def __init__(self, run: TrainingSetup, model: Any, student_memory: Tensor | None) -> None:
        """Set up at step 0.

        Args:
            run: the run.
            model: a sequence classifier at its start; it is trained in place.
            student_memory: float32 [K, D'], the start of the student memory (copied); None for methods without.
        """
        self.run, self.model = run, model.to(run.device)
        self.weights = term_weights(run.config["method"], run.config)
        needs_memory = "global" in self.weights
        assert not needs_memory or student_memory is not None, "fsd_g and fsd_ilg need a student memory"
        self.memory = None
        if needs_memory and student_memory is not None:
            self.memory = torch.nn.Parameter(student_memory.detach().clone().to(run.device))
        self.optimizer = _optimizer(self.model, self.memory, run.config["weight_decay"], run.device)
        self.batches_per_epoch = math.ceil(len(run.train) / run.config["batch_size"])
        self.accumulation = run.config["gradient_accumulation"]
        self.steps_total = math.ceil(self.batches_per_epoch * run.config["epochs"] / self.accumulation)
        self.step = self.report = 0
        self.seconds = {"train": 0.0, "evaluation": 0.0}
        self.logits: NDArray[np.float32] | None = None
        self._last: tuple[dict[str, float], dict[str, float]] | None = None
        self._order: tuple[int, list[NDArray[np.int64]]] = (-1, [])
        _seed(run.seed)

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.report >= self.run.reports

    def train_to_next_evaluation(self, on_step: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Train to the next report's step, evaluate on dev, and return the record.

        Args:
            on_step: called after each step with the number of steps done.

        Returns:
            report, epoch, step, steps_total, the task's metrics, `loss` and `loss/<term>` (unweighted) and
            `weighted/<term>`, means over the steps since the last report, learning_rate, train_seconds and
            evaluation_seconds so far, and `diverged` with the reason when a loss or metric is not finite.
        """
        assert not self.done
        started = time.monotonic()
        self.report += 1
        self.model.train()
        sums: dict[str, Tensor] = {}
        before = self.step
        target = math.ceil(self.steps_total * self.report / self.run.reports)
        while self.step < target:
            for name, value in self._train_step().items():
                sums[name] = sums[name] + value if name in sums else value
            if on_step is not None:
                on_step(self.step)
        means = {name: float(value) / (self.step - before) for name, value in sums.items()}
        trained = time.monotonic()
        if self.step > before or self._last is None:
            self.logits = predict(self.model, self.run.dev, self.run.precision, self.run.device)
            self._last = (means, evaluate(self.run.task, self.logits, self.run.dev.labels))
        # With fewer steps than reports nothing has changed: the same record again, without its cost.
        means, metrics = self._last
        self.seconds["train"] += trained - started
        self.seconds["evaluation"] += time.monotonic() - trained
        record: dict[str, Any] = {
            "report": self.report,
            "epoch": round(self.step * self.accumulation / self.batches_per_epoch, 4),
            "step": self.step,
            "steps_total": self.steps_total,
            **metrics,
            **_named(means, self.weights),
            "learning_rate": self._learning_rate(max(self.step - 1, 0)),
            "train_seconds": round(self.seconds["train"], 4),
            "evaluation_seconds": round(self.seconds["evaluation"], 4),
        }
        bad = [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
        if bad:
            record["diverged"] = f"{bad[0]} is {record[bad[0]]} at step {self.step}"
        return record

    def _train_step(self) -> dict[str, Tensor]:
        """One optimiser step; the terms of its batches, detached, averaged (no synchronisation with the device)."""
        first = self.step * self.accumulation
        count = min(self.accumulation, self.batches_per_epoch * self.run.config["epochs"] - first)
        return self.train_on(*(self._rows(index) for index in range(first, first + count)))

    def train_on(self, *batches: NDArray[np.int64]) -> dict[str, Tensor]:
        """One optimiser step on the given batches of training rows; the terms as `_train_step` gives them."""
        sums: dict[str, Tensor] = {}
        count = len(batches)
        for rows in batches:
            terms = self._terms(rows)
            total = torch.stack([terms[name] * weight for name, weight in self.weights.items()]).sum()
            torch.autograd.backward(total / count)
            terms["total"] = total
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() / count
        weights = [p for p in self.model.parameters() if p.requires_grad]
        memory = [] if self.memory is None else [self.memory]
        # Clipped apart: the student's gradient must not shrink with the memory's (method.md, "Scale"). As published it
        # does: one norm for all.
        together = self.run.padding == "published"
        for clipped in [weights + memory] if together else [weights, memory]:
            torch.nn.utils.clip_grad_norm_(clipped, _CLIP)
        rate = self._learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return sums

    def _rows(self, index: int) -> NDArray[np.int64]:
        epoch = index // self.batches_per_epoch
        if self._order[0] != epoch:
            config = self.run.config
            self._order = (epoch, epoch_order(len(self.run.train), self.run.seed, config["batch_size"], epoch))
        rows: NDArray[np.int64] = self._order[1][index % self.batches_per_epoch]
        return rows

    def _terms(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """The method's terms for one batch, unweighted, with gradient; L_G's parts are named global/<part>."""
        run = self.run
        published = run.padding == "published"
        inputs = collate(run.train, rows, run.device, pad_to=run.train.max_length if published else None)
        labels = inputs.pop("labels")
        structured = bool(self.weights.keys() & {*PAIRED, "global"})
        with autocast(run.precision, run.device):
            out = self.model(**inputs_for(self.model, inputs), output_hidden_states=structured)
        terms = {"task": losses.task_loss(out.logits, labels)}
        if run.source is None:
            assert self.weights.keys() == {"task"}
            return terms
        teacher = run.source.batch(rows, inputs)
        terms["kd"] = losses.kd_loss(teacher.logits, out.logits, run.config["temperature"])
        mask = None if published else inputs["attention_mask"]
        for name, loss in PAIRED.items():
            if name in self.weights:
                values = [loss(teacher.features[t], out.hidden_states[s], mask) for t, s in run.pairs]
                terms[name] = torch.stack(values).mean()
        if "global" in self.weights:
            assert teacher.targets is not None and self.memory is not None
            feature = losses.flatten(out.hidden_states[run.memory_layer], mask)
            parts = losses.global_terms(teacher.targets, feature, self.memory, run.distance)
            terms["global"] = losses.global_sum(parts, run.config["gamma_m"])
            terms |= {f"global/{name}": value for name, value in parts.items()}
        return terms

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to zero at the end; a function of the step, so nothing to restore."""
        warmup = math.ceil(self.run.config["warmup_ratio"] * self.steps_total)
        peak: float = self.run.config["learning_rate"]
        if step < warmup:
            return float(peak * (step + 1) / warmup)
        return float(peak * (self.steps_total - step) / max(1, self.steps_total - warmup))

    def save(self, folder: Path) -> None:
        """Write a checkpoint: the student as a transformers folder, and what continuing needs in `state.pt`.

        A run that is done needs no more than the student.
        """
        self.model.save_pretrained(folder / "student")
        if self.done:
            checkpoints.seal(folder, self.report)
            return
        state = {
            "step": self.step,
            "report": self.report,
            "seconds": self.seconds,
            "memory": None if self.memory is None else self.memory.detach(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state() if self.run.device.type == "cuda" else None,
        }
        torch.save(state, folder / "state.pt")
        checkpoints.seal(folder, self.report)

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint: weights, student memory, optimiser, position and random state."""
        from safetensors.torch import load_file

        weights = {}
        for path in sorted((folder / "student").glob("*.safetensors")):
            weights.update(load_file(path))
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        assert not missing and not unexpected, (missing, unexpected)
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        self.step, self.report, self.seconds = state["step"], state["report"], state["seconds"]
        if self.memory is not None:
            with torch.no_grad():
                self.memory.copy_(state["memory"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if state["cuda_random"] is not None and self.run.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"])


def start_memory(start: Tensor | None, centroids: int, width: int, seed: int) -> Tensor:
    """The student memory's start: the matched one if given, else the published standard normal, float32 [K, width]."""
    if start is not None:
        return start
    return torch.randn(centroids, width, generator=torch.Generator().manual_seed(seed))


def _optimizer(model: Any, memory: Tensor | None, weight_decay: float, device: torch.device) -> torch.optim.AdamW:
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    norms = {
        f"{name}.{own}" if name else own
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Norm")  # families have classes of their own
        for own, _ in module.named_parameters(recurse=False)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name.endswith("bias") or name in norms else decayed).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if memory is not None:
        groups.append({"params": [memory], "weight_decay": 0.0})
    # The rate is set before each step by the schedule.
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def _named(means: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Report names of the mean terms: loss, loss/<term> and weighted/<term>."""
    named = {"loss": means["total"]} if "total" in means else {}
    for name, value in means.items():
        if name != "total":
            named[f"loss/{name}"] = value
        if name in weights:
            named[f"weighted/{name}"] = value * weights[name]
    return named


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
