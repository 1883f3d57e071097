"""Train and evaluate one model, without Ray: single runs, trials and the fine-tuning of teachers share it.

See docs/explanation/method.md, "Training".
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.data.splits import compute_metrics
from fsd_tune.models.inference import predict
from fsd_tune.models.loading import load_finished
from fsd_tune.models.quiet import transformers_quiet
from fsd_tune.settings.methods import term_weights
from fsd_tune.storage import checkpoints
from fsd_tune.storage.io_errors import library_errors
from fsd_tune.training.batch_schedule import BatchSchedule
from fsd_tune.training.loss_terms import loss_terms
from fsd_tune.training.optimizer import (
    build_optimizer,
    clip_gradients,
    learning_rate_at,
    seed_torch,
    set_step,
)
from fsd_tune.training.setup import TrainingSetup
from fsd_tune.training.term_means import TermMeans


class Distiller:
    """A training run that a checkpoint can continue on any machine as if it had not been interrupted.

    Attributes:
        setup: the run's data, configuration and teacher targets.
        model: the model in training.
        memory: the student memory, float32 [K, D']; None for methods without L_G.
        schedule: the batches of each step.
        weights: weight of each loss term of the method.
        step: optimiser steps done.
        steps_total: optimiser steps of the whole run.
        report: evaluations done.
        logits: the logits of the last evaluation, float32 [dev examples, C]; None before the first.
    """

    def __init__(self, setup: TrainingSetup, model: Any, student_memory: Tensor | None) -> None:
        """Set up the run at step 0.

        Args:
            setup: the run's data, configuration and teacher targets.
            model: a sequence classifier at its start; it is trained in place.
            student_memory: start of the student memory, float32 [K, D'] (copied); None for methods without one.
        """
        self.setup = setup
        self.model = model.to(setup.device)
        self.weights = term_weights(setup.config["method"], setup.config)
        self._weights = torch.empty(0)
        self.memory: torch.nn.Parameter | None = None
        if "global" in self.weights:
            assert student_memory is not None, "fsd_g and fsd_ilg need a student memory"
            self.memory = torch.nn.Parameter(student_memory.detach().clone().to(setup.device))
        self.optimizer = build_optimizer(self.model, self.memory, setup.config["weight_decay"])
        self.schedule = BatchSchedule(
            len(setup.train), setup.config["batch_size"], setup.config["epochs"],
            setup.config["gradient_accumulation"], setup.seed, setup.optimizer.accumulation == "published",
            setup.train.lengths if setup.batching == "grouped" else None,
        )  # fmt: skip
        self.steps_total = self.schedule.steps_total
        self.step = 0
        self.report = 0
        self.seconds = {"train": 0.0, "evaluation": 0.0}
        self.logits: NDArray[np.float32] | None = None
        self._means = TermMeans()
        self._metrics: dict[str, float] = {}
        seed_torch(setup.seed)

    @property
    def done(self) -> bool:
        """True after the last evaluation."""
        return self.report >= self.setup.reports

    def train_to_next_evaluation(self, on_step: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Train up to the next evaluation, evaluate on dev, and return the report.

        Args:
            on_step: called after each step with the number of steps done.

        Returns:
            report, epoch, step, steps_total, the task's metrics, `loss` and `loss/<term>` (unweighted) and
            `weighted/<term>`, means over the steps since the last report, learning_rate, train_seconds and
            evaluation_seconds so far, and `diverged` with the reason when a loss or metric is not finite.
        """
        assert not self.done
        self.train_towards_evaluation(on_step=on_step)
        self.report += 1
        # With fewer steps than reports, two reports may have no step between them. The second repeats the values of
        # the first, without another evaluation.
        has_trained = self._means.end_interval()
        trained = time.monotonic()
        if has_trained or self.logits is None:
            self.logits = predict(self.model, self.setup.dev, self.setup.precision, self.setup.device)
            self._metrics = compute_metrics(self.setup.task, self.logits, self.setup.dev.labels)
        self.seconds["evaluation"] += time.monotonic() - trained
        record: dict[str, Any] = {
            "report": self.report,
            "epoch": round(self.schedule.epochs_after(self.step), 4),
            "step": self.step,
            "steps_total": self.steps_total,
            **self._metrics,
            **self._means.reported(self.weights),
            "learning_rate": self._learning_rate(max(self.step - 1, 0)),
            "train_seconds": round(self.seconds["train"], 4),
            "evaluation_seconds": round(self.seconds["evaluation"], 4),
        }
        not_finite = [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
        if not_finite:
            record["diverged"] = f"{not_finite[0]} is {record[not_finite[0]]} at step {self.step}"
        return record

    def train_towards_evaluation(
        self, pause: Callable[[], bool] = lambda: False, on_step: Callable[[int], None] | None = None
    ) -> bool:
        """Train up to the next evaluation, or until `pause` returns True after a step.

        Args:
            pause: called after each step.
            on_step: called after each step with the number of steps done.

        Returns:
            True if the next evaluation is due, False if training paused before it.
        """
        started = time.monotonic()
        target = math.ceil(self.steps_total * (self.report + 1) / self.setup.reports)
        self.model.train()
        paused = False
        while self.step < target and not paused:
            self._means.add(self.train_step())
            if on_step is not None:
                on_step(self.step)
            paused = pause()
        self._means.wait()  # Else the time would be too short on a GPU.
        self.seconds["train"] += time.monotonic() - started
        return self.step == target

    def train_step(self) -> dict[str, Tensor]:
        """Make the next optimiser step.

        Returns:
            The mean terms, as `train_on` returns them.
        """
        return self.train_on(*map(self.schedule.rows, self.schedule.batches_of(self.step)))

    def train_on(self, *batches: NDArray[np.int64]) -> dict[str, Tensor]:
        """Make one optimiser step on batches of training rows.

        Args:
            *batches: rows of each batch, int64 [B]; their gradients are averaged, or with published accumulation
                combined as in the method's published script.

        Returns:
            The mean of each unweighted term and of `total` over the batches: detached scalars on the device, so that
            a step does not wait for it.
        """
        done: list[dict[str, Tensor]] = []
        divisor = len(batches)
        optimizer = self.setup.optimizer
        if optimizer.accumulation == "published":
            # Of the published scripts, that of FSD_IL and FSD_ILG divides by the number of batches; the others add up.
            averages = self.setup.config["method"] in ("fsd_il", "fsd_ilg")
            divisor = self.schedule.accumulation if averages else 1
        for rows in batches:
            terms = loss_terms(self.setup, self.model, self.memory, self.weights.keys(), rows)
            total = self._total(terms)
            torch.autograd.backward(total if divisor == 1 else total / divisor)
            done.append({name: value.detach() for name, value in (terms | {"total": total}).items()})
        clip_gradients(self.model, self.memory, together=optimizer.clipping == "together")
        set_step(self.optimizer, self.step, self._learning_rate(self.step), optimizer.epsilon == "published")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if len(done) == 1:
            return done[0]
        return {name: torch.stack([terms[name] for terms in done]).mean() for name in done[0]}

    def _total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the method's terms."""
        values = torch.stack([terms[name] for name in self.weights])
        if not len(self._weights):
            # Filled on the device: a copy from the host would make the host wait.
            self._weights = torch.stack([values.new_full((), weight) for weight in self.weights.values()])
        return torch.dot(values, self._weights)

    def _learning_rate(self, step: int) -> float:
        config = self.setup.config
        return learning_rate_at(step, self.steps_total, config["learning_rate"], config["warmup_ratio"])

    @transformers_quiet()
    def save(self, folder: Path) -> None:
        """Write a checkpoint: the model as a transformers folder, and in `state.pt` the rest of the run's state.

        A finished run needs no `state.pt`.

        Args:
            folder: the checkpoint's folder, which may exist.

        Raises:
            OSError: it cannot be written.
        """
        with library_errors(folder):
            self._write(folder)

    def _write(self, folder: Path) -> None:
        self.model.save_pretrained(folder / "student")
        if not self.done:
            state = {
                "step": self.step,
                "report": self.report,
                "seconds": self.seconds,
                **self._means.state(),
                "memory": None if self.memory is None else self.memory.detach(),
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "cuda_random": torch.cuda.get_rng_state() if self.setup.device.type == "cuda" else None,
            }
            torch.save(state, folder / checkpoints.STATE)
        checkpoints.seal(folder, self.report, self.step)

    @property
    def checkpoint_bytes(self) -> int:
        """The bytes of a checkpoint, but for the small files: the weights and, before the end, the optimiser's."""
        kept: int = sum(tensor.numel() * tensor.element_size() for tensor in self.model.state_dict().values())
        if self.done:
            return kept
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        # AdamW keeps two moments of each trained parameter.
        moments: int = 2 * sum(parameter.numel() * parameter.element_size() for parameter in trained)
        memory: int = 0 if self.memory is None else self.memory.numel() * self.memory.element_size()
        return kept + moments + memory

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint: weights, student memory, optimiser, position and random state.

        Args:
            folder: a checkpoint of an unfinished run with the same settings.
        """
        # Names on disk may differ from the model's, which transformers' loader knows.
        self.model.load_state_dict(load_finished(folder / "student").state_dict())
        state = torch.load(folder / checkpoints.STATE, map_location="cpu", weights_only=True)
        self.step = state["step"]
        self.report = state["report"]
        self.seconds = state["seconds"]
        self._means.load(state, self.setup.device)
        if self.memory is not None:
            with torch.no_grad():
                self.memory.copy_(state["memory"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if state["cuda_random"] is not None and self.setup.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"])


def start_memory(start: Tensor | None, centroids: int, width: int, seed: int) -> Tensor:
    """Return the start of the student memory: the matched one if given, else the published standard normal.

    Args:
        start: the matched start, float32 [K, D'], or None.
        centroids: K.
        width: D', the width of a flattened student feature.
        seed: of the normal numbers.

    Returns:
        float32 [K, D'].
    """
    if start is not None:
        return start
    return torch.randn(centroids, width, generator=torch.Generator().manual_seed(seed))
