"""Checkpoints of a single training run, beside its output, so that the same command continues it.

`<output>.unfinished/<identity>/checkpoint_N/` holds the run after N evaluations: its reports and `Distiller.save`.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsd_tune.progress import Display
from fsd_tune.storage import checkpoints, json_file
from fsd_tune.storage.artifacts import atomic_folder, digest, write_json
from fsd_tune.training.distiller import Distiller

_REPORTS = "reports.json"
# A checkpoint holds weights and two moments of each; the output needs room for the weights as well.
_ROOM = 4
# A checkpoint that takes longer than this is written only when it takes at most a tenth of the time.
_FREE_SECONDS = 2.0
_TIMES_ITS_COST = 10


def unfinished_folder(output: Path) -> Path:
    """Return the folder of the checkpoints of unfinished runs whose output is `output`.

    Args:
        output: the folder that a run writes its model to.
    """
    return output.parent / f"{output.name}.unfinished"


def identity_of(distiller: Distiller, *facts: Any) -> str:
    """Return a digest of everything that the result of a run depends on.

    Args:
        distiller: the run at step 0; its starting weights stand for the models that it was made from.
        *facts: what else the result depends on, such as the teacher memory's fingerprint; JSON values.
    """
    setup = distiller.setup
    settings = [
        dict(setup.config), setup.pairs, setup.memory_layer, setup.distance, setup.padding, setup.reports, setup.seed,
        setup.precision, setup.device.type, setup.task.definition, setup.train.max_length,
    ]  # fmt: skip
    # Runs of earlier versions had random batches and keep their identity.
    if setup.batching != "random":
        settings.append(setup.batching)
    arrays: list[Any] = []
    for split in (setup.train, setup.dev):
        parts = (split.ids, split.offsets, split.labels, split.types)
        arrays += [b"" if part is None else part for part in parts]
    weights = dict(distiller.model.state_dict())
    if distiller.memory is not None:
        weights["student memory"] = distiller.memory
    frozen = [name for name, parameter in distiller.model.named_parameters() if not parameter.requires_grad]
    return digest(settings, frozen, list(facts), *arrays, *(part for item in weights.items() for part in _plain(*item)))


def _plain(name: str, tensor: torch.Tensor) -> tuple[str, np.ndarray[Any, Any]]:
    return name, tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


class UnfinishedRun:
    """The checkpoints of one run."""

    def __init__(self, output: Path, identity: str, display: Display) -> None:
        """Set the paths; nothing is written yet.

        Args:
            output: the folder that the run writes at its end.
            identity: the run's `identity_of`; runs with another identity do not change its checkpoints.
            display: shows a line when checkpoints cannot be written.
        """
        self.folder = unfinished_folder(output)
        self._runs = self.folder / identity
        self._display = display
        self._disabled = False
        self._cost = 0.0
        self._saved_at = 0.0
        self.reports_kept = 0

    def continue_run(self, distiller: Distiller) -> list[dict[str, Any]]:
        """Load the newest complete checkpoint into a run at step 0, if there is one.

        Args:
            distiller: the run, at step 0.

        Returns:
            The reports made before; empty without a checkpoint.
        """
        newest = checkpoints.newest(self._runs)
        if newest is None:
            return []
        checkpoint, self.reports_kept = newest
        reports: list[dict[str, Any]] = json_file.parse((checkpoint / _REPORTS).read_bytes())
        distiller.load(checkpoint)
        return reports

    def save(self, distiller: Distiller, reports: list[dict[str, Any]]) -> None:
        """Write a checkpoint atomically and delete the one before; say once if the disk has no room for it.

        After a checkpoint that took long, the next one is written later (see `_TIMES_ITS_COST`).

        Args:
            distiller: a run that is not done.
            reports: all its reports so far.
        """
        started = time.monotonic()
        too_soon = self._cost > _FREE_SECONDS and started - self._saved_at < _TIMES_ITS_COST * self._cost
        if self._disabled or too_soon:
            return
        weights = sum(tensor.numel() * tensor.element_size() for tensor in distiller.model.state_dict().values())
        try:
            self._runs.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._runs).free < _ROOM * weights:
                raise OSError(f"less than {_ROOM * weights / 1e9:.2g} GB are free")
            self._write(distiller, reports)
            self._saved_at = time.monotonic()
            self._cost = self._saved_at - started
        except OSError as error:
            self._disabled = True
            self._display.line(
                f"note: {self.folder} cannot keep the training so far ({error}); training goes on without checkpoints."
            )

    def _write(self, distiller: Distiller, reports: list[dict[str, Any]]) -> None:
        checkpoint = self._runs / f"checkpoint_{distiller.report:06d}"
        with atomic_folder(checkpoint) as temporary:
            write_json(temporary / _REPORTS, reports)
            distiller.save(temporary)
        self.reports_kept = distiller.report
        for path in self._runs.iterdir():
            if path != checkpoint:
                shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Delete the run's checkpoints, and the folder unless it holds those of another run."""
        shutil.rmtree(self._runs, ignore_errors=True)
        self.reports_kept = 0
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
