"""Build what all trials of a task share: teacher outputs, teacher memory, and the start of the student memory.

Each is an artefact that is named by its content; what is already in the memories' folder is reused. Nothing here
needs Ray: the memory actor, `fsd-tune memory` and `fsd-tune distill` all call `build_artifacts`.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.data import splits
from fsd_tune.data.batching import by_length, collate
from fsd_tune.device import autocast
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.losses import flatten
from fsd_tune.memory import teacher_memory, teacher_outputs
from fsd_tune.memory.spec import MemorySpec, fingerprint
from fsd_tune.memory.teacher_outputs import Progress
from fsd_tune.models.inference import EVALUATION_BATCH, predict
from fsd_tune.models.inputs import inputs_for
from fsd_tune.models.loading import check_label_order, label_order, load_classifier
from fsd_tune.models.student_init import build_student, init_source
from fsd_tune.settings.schema import Student
from fsd_tune.storage import artifact_lock, artifacts, json_file
from fsd_tune.storage.remote import RemoteFolder
from fsd_tune.storage.remote_copies import fetched, publish


@dataclass(frozen=True)
class MemoryFacts:
    """Figures of a built memory, as `summary.json` holds them.

    Attributes:
        fingerprint: names the memory, or the outputs if there is no memory.
        examples: examples whose outputs are stored.
        live: the teacher runs in every step.
        build_seconds: seconds that building or finding the artefacts took.
        centroids: number of centroids K; None without a memory.
        sizes: examples of each cluster; None without a memory.
        inertia: sum of the squared distances of examples to their centroids; None without a memory.
    """

    fingerprint: str
    examples: int
    live: bool
    build_seconds: float
    centroids: int | None = None
    sizes: tuple[int, ...] | None = None
    inertia: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values, without those that are None."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class BuiltMemory:
    """The folders of the built artefacts, and what they cost.

    Attributes:
        outputs: folder of the teacher outputs; None for a live teacher whose outputs no memory needs.
        memory: folder of the teacher memory; None if no method uses one.
        starts: by the student's section, the folder of the matched start of its memory; empty if no method uses one.
        passes: teacher passes over the training split that this call paid, 0 or 1; 0 for a live teacher.
        passes_ever: passes that were ever paid for these outputs in this folder.
        teacher_metrics: the teacher's metrics on dev.
        facts: figures of the memory.
        remote: the URI that holds the artefacts for nodes that do not share the folders; None if all share them.
    """

    outputs: Path | None
    memory: Path | None
    starts: Mapping[Student, Path]
    passes: int
    passes_ever: int
    teacher_metrics: dict[str, float]
    facts: MemoryFacts
    remote: str | None = None

    def bring(self) -> None:
        """Copy the artefacts to this node's disk if they are not there; at most once per node.

        Raises:
            FsdTuneError: the remote folder lacks one of them.
        """
        for folder in filter(None, (self.outputs, self.memory, *self.starts.values())):
            if self.remote is None or folder.is_dir():
                continue
            with artifact_lock.locked(folder):
                if not fetched(folder, self.remote):
                    raise FsdTuneError(f"{self.remote}: holds no {folder.name}; the search's next start builds it.")


class NotBuiltError(Exception):
    """An artefact is missing, and `build` was False."""


def build_artifacts(spec: MemorySpec, progress: Progress, build: bool = True) -> BuiltMemory:
    """Build the artefacts that are missing, and return all.

    Args:
        spec: what they depend on.
        progress: called with the progress of each stage.
        build: if False, only check whether everything is there.

    Returns:
        The folders of the artefacts, and what they cost.

    Raises:
        NotBuiltError: something is missing, and `build` is False.
        InputError: the teacher's predictions on dev show that it does not fit the task or is broken.
        FsdTuneError: the disk is full.
    """
    return _Builder(spec, progress, build).run()


class _Builder:
    """A builder of the missing artefacts for one call of `build_artifacts`."""

    def __init__(self, spec: MemorySpec, progress: Progress, build: bool) -> None:
        self._spec = spec
        self._progress = progress
        self._build = build
        self._task = splits.get_task(spec.task)
        self._device = torch.device(spec.device)
        self._passes = 0

    def run(self) -> BuiltMemory:
        started = time.monotonic()
        spec = self._spec
        spec.bring()
        self._order = label_order(spec.teacher, self._task)
        teacher = fingerprint(spec.teacher.path)
        metrics = self._dev_metrics(teacher)
        outputs_key = teacher_outputs.outputs_key(
            teacher, self._order, spec.stored, spec.layers, spec.padding, spec.precision
        )
        name = outputs_key
        details: dict[str, Any] = {}
        outputs = memory = None
        starts: dict[Student, Path] = {}
        ever = 0
        layer = spec.memory_layer
        if not spec.live or layer is not None:
            passes = _passes_file(spec)
            outputs = self._outputs(outputs_key, passes)
            ever = _passes_ever(passes, outputs_key)
        if outputs is not None and layer is not None:
            name = teacher_memory.memory_key(outputs_key, layer, spec.centroids, spec.algorithm)
            memory = self._memory(name, outputs, layer)
            manifest = artifacts.facts_of(memory)
            assert manifest is not None
            details = {key: manifest[key] for key in ("centroids", "inertia")} | {"sizes": tuple(manifest["sizes"])}
            for student in spec.students:
                if student.memory_start == "matched":
                    starts[student] = self._student_start(student, name, memory)
        seconds = round(time.monotonic() - started, 3)
        facts = MemoryFacts(name, len(spec.stored), spec.live, seconds, **details)
        return BuiltMemory(outputs, memory, starts, self._passes, ever, metrics, facts, spec.remote)

    @cached_property
    def _model(self) -> Any:
        """The teacher. It is loaded when first needed, so never if all artefacts exist."""
        model: Any = load_classifier(self._spec.teacher.path, self._task)
        return model.to(self._device).eval()

    @contextmanager
    def _artefact(self, folder: Path) -> Iterator[bool]:
        """Lock an artefact, yield whether the body must build it, and publish a new one for other nodes."""
        with artifact_lock.locked(folder, lambda text: self._progress(text, 0, 1)):
            missing = not fetched(folder, self._spec.remote)
            if missing and not self._build:
                raise NotBuiltError(folder.name)
            yield missing
            if missing:
                publish(folder, self._spec.remote)

    def _dev_metrics(self, teacher: str) -> dict[str, float]:
        """Return the teacher's metrics on dev, after checking its label order."""
        spec = self._spec
        name = artifacts.digest(teacher, list(self._order), spec.precision, spec.dev.ids, spec.dev.offsets)
        folder = spec.folder / f"dev-{name}"
        with self._artefact(folder) as missing:
            if missing:
                self._write_dev(folder)
        logits = artifacts.read_array(folder / "logits.npy")
        check_label_order(spec.teacher, self._task, logits, spec.dev.labels)
        return splits.compute_metrics(self._task, logits, spec.dev.labels)

    def _write_dev(self, folder: Path) -> None:
        spec = self._spec
        self._progress("teacher on dev", 0, 1)
        with artifacts.writing(folder) as (temporary, facts):
            logits = predict(self._model, spec.dev, spec.precision, self._device)[:, list(self._order)]
            wrong = int((~np.isfinite(logits).all(-1)).sum())
            if wrong:
                raise InputError(
                    f"--teacher: {spec.teacher.path} gives logits that are not finite for {wrong} of {len(logits)} "
                    f"dev examples in {spec.precision}."
                )
            np.save(temporary / "logits.npy", logits)
            facts.update(examples=len(logits))
        self._progress("teacher on dev", 1, 1)

    def _outputs(self, key: str, passes: Path) -> Path:
        """Build the teacher outputs, add the pass to the file of passes, and return the outputs' folder."""
        spec = self._spec
        folder = spec.folder / f"outputs-{key}"
        with self._artefact(folder) as missing:
            if missing:
                teacher_outputs.write_outputs(
                    folder, self._model, self._order, spec.stored, spec.layers, spec.padding, spec.precision,
                    self._device, self._progress,
                )  # fmt: skip
                self._passes = 0 if spec.live else 1
                with passes.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"outputs": key, "time": time.time(), "whole": not spec.live}) + "\n")
                if spec.remote is not None:
                    RemoteFolder(spec.remote).put(passes, passes.name)
        return folder

    def _memory(self, key: str, outputs: Path, layer: int) -> Path:
        """Build the teacher memory of a layer from the stored outputs, and return its folder."""
        spec = self._spec
        folder = spec.folder / f"memory-{key}"
        with self._artefact(folder) as missing:
            if missing:
                stored = teacher_outputs.read_outputs(outputs, mapped=True)
                teacher_memory.write_memory(
                    folder, stored, layer, spec.centroids, spec.algorithm, self._progress, self._device
                )
        return folder

    def _student_start(self, student: Student, memory_key: str, memory: Path) -> Path:
        """Build the matched start of a student's memory, which its trials share, and return its folder.

        It costs one pass of the student at its start over the stored examples (docs/explanation/method.md, "Teacher
        memory").
        """
        spec = self._spec
        source = init_source(student, spec.teacher)
        assert source is not None, "check_fit finds a teacher without a recorded base"
        facts = student.model_dump(mode="json") | {"model": fingerprint(source)}
        seed = spec.seed if student.start == "random" else None
        layer = spec.memory_pairs[student.layers][1]
        folder = spec.folder / f"start-{artifacts.digest(memory_key, facts, seed, layer, spec.precision)}"
        with self._artefact(folder) as missing:
            if missing:
                clusters, sizes = (artifacts.read_array(memory / f"{name}.npy") for name in ("clusters", "sizes"))
                centroids = self._student_means(student, clusters, sizes, layer)
                with artifacts.writing(folder, bytes_needed=centroids.nbytes) as (temporary, manifest):
                    np.save(temporary / "start.npy", centroids)
                    manifest.update(shape=list(centroids.shape))
        return folder

    def _student_means(
        self, student: Student, clusters: NDArray[np.int32], sizes: NDArray[np.int64], layer: int
    ) -> NDArray[np.float32]:
        """Return a student's features averaged over each teacher cluster, float32 [K, D'].

        An empty cluster gets zeros, like its centroid in the published code.

        Args:
            student: the section `student`.
            clusters: cluster of each stored example, int32 [N].
            sizes: examples of each cluster, int64 [K].
            layer: index of the student's `hidden_states`.
        """
        spec, device = self._spec, self._device
        model = build_student(student, spec.teacher, self._task, spec.seed).to(device).eval()
        width = spec.stored.max_length if spec.padding == "published" else int(spec.stored.lengths.max())
        sums = torch.zeros(len(sizes), width * model.config.hidden_size, device=device)
        counts = torch.tensor(sizes).clamp(min=1).to(device)
        place = f" {spec.students.index(student) + 1} of {len(spec.students)}" if len(spec.students) > 1 else ""
        stage, done = f"student memory{place}", 0
        for rows in by_length(spec.stored.lengths, EVALUATION_BATCH):
            batch = collate(spec.stored, rows, device, pad_to=width if spec.padding == "published" else None)
            batch.pop("labels")
            with torch.inference_mode(), autocast(spec.precision, device):
                hidden = model(**inputs_for(model, batch), output_hidden_states=True).hidden_states[layer]
            feature = flatten(hidden, batch["attention_mask"] if spec.padding == "masked" else None)
            sums[:, : feature.shape[1]].index_add_(0, torch.tensor(clusters[rows]).to(device).long(), feature)
            done += len(rows)
            self._progress(stage, done, len(spec.stored))
        return (sums / counts[:, None]).cpu().numpy()


def _passes_file(spec: MemorySpec) -> Path:
    """Return the file that records every pass ever paid for these artefacts."""
    path = spec.folder / "passes.jsonl"
    if spec.remote is not None:
        with suppress(FileNotFoundError):
            RemoteFolder(spec.remote).get(path.name, path)
    return path


def _passes_ever(path: Path, outputs_key: str) -> int:
    rows = [row for _, row in json_file.read_rows(path) if row] if path.exists() else []
    return sum(row.get("outputs") == outputs_key and row.get("whole", True) is True for row in rows)
