"""What every trial of a task shares, built once: teacher outputs, teacher memory, the student memory's start.

Each is an artefact named by its content in the memories' folder; what is already there is used again. Knows nothing
of Ray: the memory actor, `fsd-tune memory` and `fsd-tune distill` all call it.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsd_tune import device
from fsd_tune.data import splits
from fsd_tune.data.batching import by_length, collate, inputs_for
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.losses import flatten
from fsd_tune.memory import teacher_memory as memory
from fsd_tune.memory import teacher_outputs
from fsd_tune.memory.spec import MemorySpec, fingerprint
from fsd_tune.memory.teacher_outputs import Progress
from fsd_tune.models.inference import EVALUATION_BATCH, predict
from fsd_tune.models.loading import check_label_order, label_order, load_classifier
from fsd_tune.models.student_init import build_student, init_source
from fsd_tune.storage import artifacts
from fsd_tune.storage.remote import RemoteFolder, fetched, publish


@dataclass(frozen=True)
class BuiltMemory:
    """Where the artefacts lie and what they cost.

    Attributes:
        outputs, memory, start: folders; None where the methods have no use for one, and of a live teacher whose
            outputs no memory needs.
        passes: teacher passes over the training split that this call paid: 0 or 1; 0 for a live teacher.
        passes_ever: passes that were ever paid for these outputs in this folder.
        teacher_metrics: the teacher's metrics on dev.
        facts: figures for people: fingerprint, sizes, seconds.
        remote: the URI that holds the artefacts for nodes that do not share the folders; None where all share them.
    """

    outputs: Path | None
    memory: Path | None
    start: Path | None
    passes: int
    passes_ever: int
    teacher_metrics: dict[str, float]
    facts: dict[str, Any]
    remote: str | None = None

    def bring(self) -> None:
        """See to it that the artefacts are on this node's disk; fetched once a node.

        Raises:
            FsdTuneError: one of them is nowhere.
        """
        for folder in filter(None, (self.outputs, self.memory, self.start)):
            if self.remote is None or folder.is_dir():
                continue
            with artifacts.locked(folder):
                if not fetched(folder, self.remote):
                    raise FsdTuneError(f"{self.remote}: holds no {folder.name}; the search's next start builds it.")


class NotBuiltError(Exception):
    """An artefact is missing, and was not to be built."""


def prepare(spec: MemorySpec, progress: Progress, build: bool = True) -> BuiltMemory:
    """Build what is missing and say what was paid.

    Args:
        spec: what is wanted.
        progress: told how far it is.
        build: False: only look whether all is there.

    Raises:
        NotBuiltError: it is not, and `build` is False.
        InputError: the teacher does not fit the task, or is broken, as its predictions on dev show.
        FsdTuneError: no space left.
    """
    started = time.monotonic()
    spec.bring()
    task, order = splits.get_task(spec.task), label_order(spec.teacher, splits.get_task(spec.task))
    name = fingerprint(spec.teacher.path)
    holder = _Teacher(spec)
    dev_folder = (
        spec.folder / f"dev-{artifacts.digest(name, list(order), spec.precision, spec.dev.ids, spec.dev.offsets)}"
    )
    with _artefact(dev_folder, spec, build) as missing:
        if missing:
            _write_dev(dev_folder, spec, holder.model, order, progress)
    logits = np.load(dev_folder / "logits.npy")
    check_label_order(spec.teacher, task, logits, spec.dev.labels)

    outputs_key = teacher_outputs.key(name, order, spec.stored, spec.layers, spec.padding, spec.precision)
    facts: dict[str, Any] = {"fingerprint": outputs_key, "examples": len(spec.stored), "live": spec.live}
    if spec.live and spec.memory_pair is None:
        facts["build_seconds"] = round(time.monotonic() - started, 3)
        return BuiltMemory(None, None, None, 0, 0, splits.evaluate(task, logits, spec.dev.labels), facts)
    outputs = spec.folder / f"outputs-{outputs_key}"
    paid, log = 0, _log(spec)
    with _artefact(outputs, spec, build) as missing:
        if missing:
            where = torch.device(spec.device)
            teacher_outputs.write(
                outputs, holder.model, order, spec.stored, spec.layers, spec.padding, spec.precision, where, progress
            )
            paid = 0 if spec.live else 1
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"outputs": outputs_key, "time": time.time(), "whole": not spec.live}) + "\n")
            if spec.remote is not None:
                RemoteFolder(spec.remote).put(log, log.name)
    memory_folder = start = None
    if spec.memory_pair is not None:
        memory_key = memory.key(outputs_key, spec.memory_pair[0], spec.centroids, spec.algorithm)
        memory_folder = spec.folder / f"memory-{memory_key}"
        with _artefact(memory_folder, spec, build) as missing:
            if missing:
                held = teacher_outputs.read(outputs, mapped=True)
                where = torch.device(spec.device)
                memory.write(memory_folder, held, spec.memory_pair[0], spec.centroids, spec.algorithm, progress, where)
        built = artifacts.facts_of(memory_folder)
        assert built is not None
        facts |= {"fingerprint": memory_key} | {key: built[key] for key in ("centroids", "sizes", "inertia")}
        if spec.student.memory_start == "matched":
            start = _student_start(spec, memory_key, memory_folder, progress, build)
    facts["build_seconds"] = round(time.monotonic() - started, 3)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    ever = sum(line["outputs"] == outputs_key and line.get("whole", True) for line in lines)
    metrics = splits.evaluate(task, logits, spec.dev.labels)
    return BuiltMemory(outputs, memory_folder, start, paid, ever, metrics, facts, spec.remote)


@contextmanager
def _artefact(folder: Path, spec: MemorySpec, build: bool) -> Iterator[bool]:
    """Hold an artefact's lock; yields whether it is to be built in the body, after which other nodes can have it."""
    with artifacts.locked(folder):
        missing = not fetched(folder, spec.remote)
        if missing and not build:
            raise NotBuiltError(folder.name)
        yield missing
        if missing:
            publish(folder, spec.remote)


def _log(spec: MemorySpec) -> Path:
    """The file that says which passes were ever paid for these artefacts."""
    log = spec.folder / "passes.jsonl"
    if spec.remote is not None:
        with suppress(FileNotFoundError):
            RemoteFolder(spec.remote).get(log.name, log)
    return log


class _Teacher:
    """Loads the teacher when it is first needed: not at all when everything is there."""

    def __init__(self, spec: MemorySpec) -> None:
        self._spec = spec
        self._model: Any = None

    @property
    def model(self) -> Any:
        if self._model is None:
            self._model = load_classifier(self._spec.teacher.path, splits.get_task(self._spec.task))
            assert self._model is not None
            self._model.to(torch.device(self._spec.device)).eval()
        return self._model


def _write_dev(folder: Path, spec: MemorySpec, model: Any, order: tuple[int, ...], progress: Progress) -> None:
    progress("teacher on dev", 0, 1)
    with artifacts.writing(folder) as (temporary, facts):
        logits = predict(model, spec.dev, spec.precision, torch.device(spec.device))[:, list(order)]
        wrong = int((~np.isfinite(logits).all(-1)).sum())
        if wrong:
            raise InputError(
                f"--teacher: {spec.teacher.path} gives logits that are not finite for {wrong} of {len(logits)} dev "
                f"examples in {spec.precision}."
            )
        np.save(temporary / "logits.npy", logits)
        facts.update(examples=len(logits))
    progress("teacher on dev", 1, 1)


def _student_start(spec: MemorySpec, memory_key: str, memory_folder: Path, progress: Progress, build: bool) -> Path:
    """The matched start of the student memory: the student's own features averaged over each teacher cluster.

    Where a cluster is empty the start is zero, as the published memory's centroid is.
    method.md, "Scale": one student inference pass over the stored examples for a (student start, data), shared by all
    trials.
    """
    assert spec.memory_pair is not None
    source = init_source(spec.student, spec.teacher)
    assert source is not None, "check_fit finds a teacher without a recorded base"
    student = spec.student.model_dump(mode="json") | {"model": fingerprint(source)}
    seed = spec.seed if spec.student.start == "random" else None
    layer = spec.memory_pair[1]
    folder = spec.folder / f"start-{artifacts.digest(memory_key, student, seed, layer, spec.precision)}"
    with _artefact(folder, spec, build) as missing:
        if missing:
            where = torch.device(spec.device)
            model = build_student(spec.student, spec.teacher, splits.get_task(spec.task), spec.seed).to(where).eval()
            clusters, sizes = (np.load(memory_folder / f"{name}.npy") for name in ("clusters", "sizes"))
            width = spec.stored.max_length if spec.padding == "published" else int(spec.stored.lengths.max())
            sums = torch.zeros(len(sizes), width * model.config.hidden_size, device=where)
            counts = torch.tensor(sizes).clamp(min=1).to(where)
            done = 0
            for rows in by_length(spec.stored.lengths, EVALUATION_BATCH):
                batch = collate(spec.stored, rows, where, pad_to=width if spec.padding == "published" else None)
                batch.pop("labels")
                with torch.inference_mode(), device.autocast(spec.precision, where):
                    hidden = model(**inputs_for(model, batch), output_hidden_states=True).hidden_states[layer]
                feature = flatten(hidden, batch["attention_mask"] if spec.padding == "masked" else None)
                sums[:, : feature.shape[1]].index_add_(0, torch.tensor(clusters[rows]).to(where).long(), feature)
                done += len(rows)
                progress("student memory", done, len(spec.stored))
            with artifacts.writing(folder, bytes_needed=sums.nbytes) as (temporary, facts):
                np.save(temporary / "start.npy", (sums / counts[:, None]).cpu().numpy())
                facts.update(shape=list(sums.shape))
    return folder
