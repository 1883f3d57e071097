"""The Ray actor that trains the runs of a confirmation."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.memory.actor import fetch_arrays
from fsd_tune.memory.build import BuiltMemory, build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.folder import write_model
from fsd_tune.models.loading import load_tokenizer
from fsd_tune.models.quiet import quiet_transformers
from fsd_tune.settings.judging import JUDGE_BY, judge
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_MEMORY
from fsd_tune.settings.schema import Student
from fsd_tune.settings.shapes import described, student_of
from fsd_tune.storage import remote_copies
from fsd_tune.storage.artifacts import read_array
from fsd_tune.storage.layout import TrialState
from fsd_tune.training.factory import DistillerFactory


class RunWorker:
    """A worker that trains one run after another, with models and data loaded once."""

    def __init__(
        self, settings: Settings, spec: MemorySpec, memory: tuple[Any, BuiltMemory] | None, reports: int
    ) -> None:
        """Load models and data.

        Args:
            settings: the settings of the search.
            spec: the inputs of the teacher memory.
            memory: the memory's actor and artefacts; None if no method needs the teacher.
            reports: number of evaluations of a run.
        """
        quiet_transformers()
        torch.set_num_threads(max(1, int(settings.resources.cpus_per_trial)))
        self._spec = spec
        self._settings = settings
        self._reports = reports
        self._factory = DistillerFactory(settings, spec, None if memory is None else fetch_arrays(*memory))
        self._memory_seeds: dict[Student, int] = {}

    def train(
        self, config: dict[str, Any], seed: int, metric: str, student: tuple[str, dict[str, Any]] | None
    ) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
        """Train one run from start to end.

        Args:
            config: the method, the searched keys of the student's shape, and the hyperparameters.
            seed: the seed of the run.
            metric: the metric that is judged.
            student: folder or URI to write the student to, and further entries of its `fsd_tune.json`; None if the
                student is not needed.

        Returns:
            The run's record, and the logits of its last evaluation, float32 [dev examples, C]; None if it diverged.
        """
        self._match_memory(config, seed)
        distiller = self._factory.distiller(config, self._reports, seed)
        rows: list[dict[str, Any]] = []
        while not distiller.done and not (rows and "diverged" in rows[-1]):
            rows.append(distiller.train_to_next_evaluation())
        last = rows[-1]
        seconds = round(last["train_seconds"] + last["evaluation_seconds"], 3)
        record: dict[str, Any] = {"config": config, "seed": seed, "device": self._spec.device, "seconds": seconds}
        if "diverged" in last:
            reason = f"diverged: {last['diverged']}"
            return record | {"state": str(TrialState.FAILED), "reason": reason, "score": None}, None
        values = [row[metric] for row in rows]
        score = judge(values, JUDGE_BY)
        record |= {"state": str(TrialState.FINISHED), "reason": "", "score": score, "last": last[metric]}
        record["values"] = values
        if student is not None:
            location, facts = student
            own = described(student_of(self._settings, config))
            student_record = facts | {
                "score": score,
                "config": config,
                "seed": seed,
                "last_report": last,
                "student": own,
            }
            tokenizer = load_tokenizer(self._spec.teacher.path)
            with remote_copies.folder_to_fill(location) as folder:
                write_model(folder, distiller.model, tokenizer, student_record)
        return record, distiller.logits

    def _match_memory(self, config: dict[str, Any], seed: int) -> None:
        """Start the student memory from the student of this seed, because a random student differs by seed."""
        student = student_of(self._settings, config)
        arrays = self._factory.arrays
        is_matched = student.start == "random" and student.memory_start == "matched"
        present = self._memory_seeds.get(student, self._spec.seed)
        if arrays is None or not is_matched or config["method"] not in USES_MEMORY or seed == present:
            return
        prepared = build_artifacts(replace(self._spec, seed=seed, students=(student,)), lambda *_: None)
        start = read_array(prepared.starts[student] / "start.npy")
        self._factory.arrays = replace(arrays, starts={**arrays.starts, student: start})
        self._memory_seeds[student] = seed
