"""Store the finished runs of a confirmation: one JSON file and the logits of each, and one student.

A run's name is a digest of its inputs, so a run on disk is never trained again.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_tune.evaluation.confirm.inputs import Configuration
from fsd_tune.storage import artifacts, json_file, layout
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.model_record import ModelRecord


@dataclass(frozen=True)
class RunRequest:
    """A configuration to train on a seed.

    Attributes:
        name: a digest of everything that the run depends on; names its files.
        configuration: the configuration to train.
        seed: the seed of batch order, dropout and initialisation.
        student: whether to write the student, too.
    """

    name: str
    configuration: Configuration
    seed: int
    student: bool = False

    @property
    def label(self) -> str:
        """The configuration and the seed, for messages."""
        return f"{self.configuration.label}, seed {self.seed}"


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended.

    Attributes:
        record: the content of its file: config, seed, device, seconds, state (finished or failed), reason and score;
            for a finished run also last and values.
        logits: logits of the last evaluation, float32 [dev examples, C]; None for a failed run.
    """

    record: dict[str, Any]
    logits: NDArray[np.float32] | None

    @property
    def score(self) -> float | None:
        """The score; None if the run failed."""
        return float(self.record["score"]) if self.record["state"] == TrialState.FINISHED else None


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all runs in the confirmation of a search; damaged ones are left out.

    Args:
        folder: the search's folder.
    """
    records = []
    for path in sorted((folder / layout.CONFIRM / "runs").glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            record = json_file.read_mapping(path)
            if isinstance(record.get("config"), dict) and "seed" in record:
                records.append(record)
    return records


class RunStore:
    """The runs below `confirm/runs/` and the student in `confirm/best/` of a search's folder."""

    def __init__(self, experiment: ExperimentFolder, dev_examples: int) -> None:
        """Open the store without reading anything.

        Args:
            experiment: the search's folder.
            dev_examples: number of dev examples, which a run's logits must have.
        """
        self._experiment = experiment
        self._dev_examples = dev_examples
        self.folder = experiment.folder / layout.CONFIRM
        self.student = self.folder / layout.BEST

    def read(self, request: RunRequest) -> FinishedRun | None:
        """Return a run from disk.

        Args:
            request: the run.

        Returns:
            The run; None if it has not ended, its files are damaged, or its student is missing.
        """
        path = self.folder / "runs" / f"{request.name}.json"
        try:
            record = json_file.read_mapping(path)
            if record["state"] == TrialState.FAILED:
                return FinishedRun(record, None)
            logits = np.load(path.with_suffix(".npy"), allow_pickle=False)
            student_run = request.name
            if request.student:
                if not (self.student / artifacts.MODEL_RECORD).is_file():
                    return None
                student_run = ModelRecord.read(self.student).run or request.name
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None
        is_complete = isinstance(record.get("score"), float) and logits.ndim == 2 and len(logits) == self._dev_examples
        return FinishedRun(record, logits) if is_complete and student_run == request.name else None

    def write(self, request: RunRequest, run: FinishedRun) -> None:
        """Write a run, and download its student if a worker has written one.

        Args:
            request: the request for the run.
            run: the finished run.
        """
        path = self.folder / "runs" / f"{request.name}.json"
        if run.logits is not None:
            with artifacts.atomic_file(path.with_suffix(".npy")) as stream:
                np.save(stream, run.logits)
            self._experiment.upload(path.with_suffix(".npy"))
        if request.student:
            self._experiment.download_folder(self.student)
        # Write the record last, because its file means that the run is complete.
        artifacts.write_json(path, run.record)
        self._experiment.upload(path)
