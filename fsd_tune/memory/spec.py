"""The specification of a search's or run's shared artefacts, limited by the disk and `memory.spool_limit_gb`."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from fsd_tune.data import splits
from fsd_tune.data.batching import TokenizedSplit
from fsd_tune.device import resolve_precision, select_device
from fsd_tune.memory import kmeans, sizes, teacher_outputs
from fsd_tune.models.layers import Pair, global_pair, layer_pairs
from fsd_tune.models.loading import ModelInfo, label_order, load_config
from fsd_tune.models.probe import usable_precision
from fsd_tune.models.student_init import init_source
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_FEATURES, USES_MEMORY, USES_TEACHER
from fsd_tune.settings.schema import Student
from fsd_tune.settings.shapes import students
from fsd_tune.storage import artifacts
from fsd_tune.storage.remote_copies import provide
from fsd_tune.storage.uri import local_path

_WEIGHTS = ("config.json", "*.safetensors")
# The sample for a live teacher's memory must not depend on the search's seed.
_SAMPLE_SEED = 0
# Outputs fill at most this share of the free disk, because checkpoints and results need room, too.
_SHARE_OF_FREE = 0.9


class SpecInputs(Protocol):
    """The checked inputs that a `MemorySpec` is made from; `training.inputs.Inputs` is one."""

    @property
    def task(self) -> splits.Task:
        """The task."""
        ...

    @property
    def teacher(self) -> ModelInfo:
        """The description of the teacher."""
        ...

    @property
    def train(self) -> TokenizedSplit:
        """The tokenised training split."""
        ...

    @property
    def dev(self) -> TokenizedSplit:
        """The tokenised split that evaluations use."""
        ...


@dataclass(frozen=True)
class MemorySpec:
    """Everything that the shared artefacts depend on.

    Attributes:
        teacher: description of the teacher.
        task: the task itself, because workers on other nodes do not see the file of a user's own task.
        train: tokenised training split.
        dev: tokenised split that evaluations use.
        layers: teacher `hidden_states` indices to store; empty when only logits are stored.
        stored: the examples whose outputs are stored: `train`, or a sample of it for a live teacher's memory.
        live: the teacher runs in every step, because its outputs would take too much room.
        pairs: by the student's number of layers, (t, s) of the terms that compare layers; empty when no method of the
            search uses features.
        memory_pairs: likewise (t, s) of the layers whose features the memories cluster, the same t for all; empty when
            no method uses a memory.
        centroids: number of clusters K, capped at the number of stored examples.
        students: the section `student` of each shape in the space; the matched start of their memory depends on it.
        padding: setting `data.padding`.
        algorithm: setting `memory.algorithm`.
        precision: bf16 or float32.
        device: cpu or cuda.
        seed: setting `search.seed`.
        folder: the folder of the artefacts; with `remote`, each node's copy of it.
        remote: the URI that holds them for all nodes; None when all nodes share `folder`.
        brought: (path, URI) of the models' folders, for nodes that do not have them.
        notes: what was adapted to the disk or the data, in sentences for the user.
    """

    teacher: ModelInfo
    task: splits.Task
    train: TokenizedSplit
    dev: TokenizedSplit
    layers: tuple[int, ...]
    stored: TokenizedSplit
    live: bool
    pairs: Mapping[int, tuple[Pair, ...]]
    memory_pairs: Mapping[int, Pair]
    centroids: int
    students: tuple[Student, ...]
    padding: str
    algorithm: str
    precision: str
    device: str
    seed: int
    folder: Path
    remote: str | None = None
    brought: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def from_inputs(
        cls,
        settings: Settings,
        inputs: SpecInputs,
        folder: Path,
        device: str = "auto",
        *,
        remote: str | None = None,
        native_bf16: bool | None = None,
    ) -> "MemorySpec":
        """Return the specification of the artefacts that a search or a run with these settings needs.

        Outputs that would take more than `memory.spool_limit_gb`, or than is free on the disk of `folder`, are not
        stored: methods with features then run the teacher live, and `kd` alone stores the logits only.

        Args:
            settings: the settings of the search or run.
            inputs: its checked inputs.
            folder: the folder of the artefacts.
            device: auto, cpu or cuda.
            remote: the URI that holds the artefacts for all nodes; None when all nodes share `folder`.
            native_bf16: whether the GPUs of other machines, which then compute, multiply bfloat16 natively; None if
                this machine computes.
        """
        methods = set(settings.methods)
        own = students(settings)
        depths = settings.student.possible("layers")
        of_depth = {depth: global_pair(settings.loss.layers, inputs.teacher.layers, depth) for depth in depths}
        pairs = {
            depth: layer_pairs(settings.loss.layers, inputs.teacher.layers, depth)
            for depth in (depths if methods & USES_FEATURES else ())
        }
        memory_pairs = of_depth if methods & USES_MEMORY else {}
        chosen_device = select_device(device, remote=native_bf16 is not None)
        sources = filter(None, (init_source(student, inputs.teacher) for student in own))
        precision, said = usable_precision(
            resolve_precision(settings.precision, chosen_device, native_bf16),
            list(dict.fromkeys((inputs.teacher.path, *sources))),
        )
        # The memory's layer is always stored: a later search with a memory then needs no second pass.
        layers = tuple(sorted({t for t, _ in (*of_depth.values(), *chain(*pairs.values()))}))
        memory_layer = next((t for t, _ in memory_pairs.values()), None)
        storage = _plan_storage(settings, inputs, layers, memory_layer, precision, folder)
        notes = said + storage.notes
        centroids = settings.memory.centroids or inputs.task.default_centroids
        count = len(storage.stored)
        if centroids > count and memory_layer is not None:
            notes += (f"memory.centroids: {centroids} lowered to {count}, the number of training examples.",)
        if memory_pairs and len(own) > 1 and settings.student.memory_start == "matched":
            notes += (
                f"student: each of the {len(own)} shapes takes a pass of its untrained student over {count:,} training "
                "examples, before the trials start.",
            )
        return cls(
            teacher=inputs.teacher,
            task=inputs.task,
            train=inputs.train,
            dev=inputs.dev,
            layers=storage.layers,
            stored=storage.stored,
            live=storage.live,
            pairs=pairs,
            memory_pairs=memory_pairs,
            centroids=min(centroids, count),
            students=own,
            padding=settings.data.padding,
            algorithm=settings.memory.algorithm,
            precision=precision,
            device=chosen_device.type,
            seed=settings.search.seed,
            folder=folder.absolute(),  # Workers on other nodes read it, too.
            remote=remote,
            notes=notes,
        )

    @property
    def memory_layer(self) -> int | None:
        """The teacher layer whose features the memory clusters; None when no method uses a memory."""
        return next((t for t, _ in self.memory_pairs.values()), None)

    @property
    def model_folders(self) -> list[str]:
        """The folders of the teacher and of the models that students start from; models of the hub have none."""
        models = (self.teacher.path, *(student.model or self.teacher.base for student in self.students))
        return [path for path in dict.fromkeys(models) if path and Path(path).is_dir()]

    @property
    def nbytes(self) -> int:
        """The bytes of the outputs and the memory on a disk; 0 if nothing is stored."""
        if self.live and not self.memory_pairs:
            return 0
        padded = self.train.max_length if self.padding == "published" else None
        examples = len(self.stored)
        hidden = self.teacher.hidden_size
        classes = len(self.teacher.labels)
        positions = examples * padded if padded else int(self.stored.offsets[-1])
        size = sizes.outputs_bytes(positions, examples, hidden, len(self.layers), classes)
        if not self.memory_pairs:
            return size
        return size + sizes.memory_bytes(examples, self.centroids, (padded or int(self.stored.lengths.max())) * hidden)

    def bring(self) -> None:
        """Copy the models' folders to this node's disk if they are not there.

        Raises:
            FsdTuneError: one of them cannot be found, or cannot be written at the path that other nodes use.
        """
        for path, uri in self.brought:
            provide(Path(path), uri)


@dataclass(frozen=True)
class _Storage:
    """The choice of teacher outputs to store; see the attributes of `MemorySpec`."""

    layers: tuple[int, ...]
    stored: TokenizedSplit
    live: bool
    notes: tuple[str, ...]


def _plan_storage(
    settings: Settings,
    inputs: SpecInputs,
    layers: tuple[int, ...],
    memory_layer: int | None,
    precision: str,
    folder: Path,
) -> _Storage:
    """Choose what to store: the outputs of all examples if they fit the disk, else less."""
    methods, train = set(settings.methods), inputs.train
    size, room, limited_by = _room(settings, inputs, layers, precision, folder)
    if not methods & USES_TEACHER or size <= room:
        return _Storage(layers, train, False, ())
    excess = f"the teacher's outputs on {len(train):,} examples would take {size / 1e9:.3g} GB, {limited_by}"
    if not methods & (USES_FEATURES | USES_MEMORY):
        return _Storage((), train, False, (f"{excess}; only its logits are stored, which is all that kd needs.",))
    cost = f"{excess}; {_live_cost(settings, inputs.teacher)}"
    if memory_layer is None:
        return _Storage(layers, train, True, (cost,))
    stored = _sample(settings, inputs, size, room)
    sampled = f"the teacher memory stands for a sample of {len(stored):,} examples."
    return _Storage((memory_layer,), stored, True, (cost, sampled))


def _room(
    settings: Settings, inputs: SpecInputs, layers: tuple[int, ...], precision: str, folder: Path
) -> tuple[int, float, str]:
    """Return the bytes of the outputs, the bytes that they may take, and what limits them, in words."""
    teacher, train = inputs.teacher, inputs.train
    positions = len(train) * train.max_length if settings.data.padding == "published" else int(train.offsets[-1])
    size = sizes.outputs_bytes(positions, len(train), teacher.hidden_size, len(layers), len(teacher.labels))
    limit = settings.memory.spool_limit_gb * 1e9
    limit_name = f"over memory.spool_limit_gb ({settings.memory.spool_limit_gb:g})"
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = _SHARE_OF_FREE * shutil.disk_usage(existing).free
    if limit <= free or size <= free:
        return size, limit, limit_name
    order = label_order(teacher, inputs.task)
    key = teacher_outputs.outputs_key(fingerprint(teacher.path), order, train, layers, settings.data.padding, precision)
    if (folder / f"outputs-{key}" / artifacts.MANIFEST).is_file():
        return size, limit, limit_name
    return size, free, f"and {free / 0.9e9:.3g} GB are free on the disk of {folder}"


def _live_cost(settings: Settings, teacher: ModelInfo) -> str:
    """Describe a live teacher's cost: its forward pass beside the student's forward and backward (three forwards)."""
    sizes = [
        student.layers * ((student.hidden_size or teacher.hidden_size) / teacher.hidden_size) ** 2
        for student in students(settings)
    ]
    times = dict.fromkeys(f"{1 + teacher.layers / (3 * size):.2g}" for size in (max(sizes), min(sizes)))
    return (
        f"the teacher runs live in every step, which makes a step about {' to '.join(times)} times plain fine-tuning's."
    )


def _sample(settings: Settings, inputs: SpecInputs, size: int, room: float) -> TokenizedSplit:
    """Return examples for a live teacher's memory: as many as fit, at most what k-means starts from, at least K.

    The longest example is among them, so that no later one is wider than the memory.
    """
    train = inputs.train
    k = settings.memory.centroids or inputs.task.default_centroids
    count = min(len(train), max(k, min(kmeans.SAMPLE_EXAMPLES, int(len(train) * room / size))))
    rows = np.random.default_rng(_SAMPLE_SEED).permutation(len(train))[:count]
    longest = int(train.lengths.argmax())
    if longest not in rows:
        rows[0] = longest
    return train.take(np.sort(rows))


def fingerprint(path: str) -> str:
    """Return a name for a model's weights: the digest of its files, or of a hub id and its commit.

    Args:
        path: a model's folder, or a hub id.

    Returns:
        16 hex digits.
    """
    folder = local_path(path)
    if folder.is_dir():
        return artifacts.folder_digest(folder, _WEIGHTS)
    return artifacts.digest(path, getattr(load_config(path), "_commit_hash", None))
