"""A distilled student: its folder and the record of how it was made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.models.loading import load_finished, load_tokenizer


@dataclass(frozen=True)
class Student:
    """A distilled student.

    Attributes:
        folder: a transformers folder with model, tokenizer and `fsd_tune.json`.
        metrics: the task's metrics at the last evaluation.
        record: the contents of `fsd_tune.json`; its entries are available as `student["score"]`, too.
    """

    folder: Path
    metrics: dict[str, float]
    record: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.record[key]

    @property
    def score(self) -> float:
        """The selection metric at the last evaluation."""
        return float(self.record["score"])

    @property
    def config(self) -> dict[str, Any]:
        """The configuration: `method`, its hyperparameters and the optimisation ones."""
        return dict(self.record["config"])

    @property
    def reports(self) -> list[dict[str, Any]]:
        """The evaluations, one row each: step, epoch, metrics, losses and seconds."""
        return list(self.record["reports"])

    def load(self) -> tuple[Any, Any]:
        """Load the student.

        Returns:
            The transformers model, in float32, and its tokenizer.
        """
        return load_finished(self.folder).eval(), load_tokenizer(str(self.folder))
