"""What the shared artefacts of a search or run depend on, and whether they fit the disk (`memory.spool_limit_gb`)."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsd_tune.data import splits
from fsd_tune.data.batching import TokenizedSplit
from fsd_tune.device import resolve_precision, select_device
from fsd_tune.memory import sizes, teacher_memory, teacher_outputs
from fsd_tune.models.layers import global_pair, layer_pairs
from fsd_tune.models.loading import ModelInfo, label_order, load_config
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_FEATURES, USES_MEMORY, USES_TEACHER
from fsd_tune.settings.schema import Student
from fsd_tune.storage import artifacts
from fsd_tune.storage.remote import provide

_WEIGHTS = ("config.json", "*.safetensors")
# Which examples a live teacher's memory stands for must not depend on the search's seed.
_SAMPLE_SEED = 0
# Of the free disk, what outputs may fill: checkpoints and results need room, too.
_SHARE_OF_FREE = 0.9


@dataclass(frozen=True)
class MemorySpec:
    """All that the shared artefacts depend on.

    Attributes:
        teacher: the teacher's description.
        task: the task itself: workers elsewhere do not see the file of one's own.
        train, dev: the tokenised splits.
        layers: teacher `hidden_states` indices to store; empty when only logits are.
        stored: the examples whose outputs are stored: `train`, or a sample of it for a live teacher's memory.
        live: the teacher runs in every step, for its outputs would take more room than they may.
        pairs: (t, s) of the terms that compare layers; empty when no method of the search uses features.
        memory_pair: (t, s) that the memories stand for; None when no method of the search has one.
        centroids: K, already at most the number of stored examples; ours when no method has a memory, too.
        student: how students start (the matched start of their memory is theirs).
        padding, algorithm, precision, device, seed: settings, resolved.
        folder: where artefacts lie; with `remote`, each node's copy of them.
        remote: the URI that holds them for all nodes; None when all nodes share `folder`.
        brought: (path, URI) of the models' folders, for nodes that do not have them.
    """

    teacher: ModelInfo
    task: splits.Task
    train: TokenizedSplit
    dev: TokenizedSplit
    layers: tuple[int, ...]
    stored: TokenizedSplit
    live: bool
    pairs: tuple[tuple[int, int], ...]
    memory_pair: tuple[int, int] | None
    centroids: int
    student: Student
    padding: str
    algorithm: str
    precision: str
    device: str
    seed: int
    folder: Path
    remote: str | None = None
    brought: tuple[tuple[str, str], ...] = ()

    @property
    def model_folders(self) -> list[str]:
        """The folders of the teacher and of the model that students start from; a hub's models have none."""
        models = (self.teacher.path, self.student.model or self.teacher.base)
        return [path for path in dict.fromkeys(models) if path and Path(path).is_dir()]

    @property
    def nbytes(self) -> int:
        """Bytes of the outputs and the memory on a disk (README, "What a trial costs"); 0 where nothing is stored."""
        if self.live and self.memory_pair is None:
            return 0
        padded = self.train.max_length if self.padding == "published" else None
        examples, hidden, classes = len(self.stored), self.teacher.hidden_size, len(self.teacher.labels)
        positions = examples * padded if padded else int(self.stored.offsets[-1])
        size = sizes.outputs_bytes(positions, examples, hidden, len(self.layers), classes)
        if self.memory_pair is None:
            return size
        return size + sizes.memory_bytes(examples, self.centroids, (padded or int(self.stored.lengths.max())) * hidden)

    def bring(self) -> None:
        """See to it that the models' folders are on this node's disk.

        Raises:
            FsdTuneError: one of them is nowhere, or cannot be written where the others have it.
        """
        for path, uri in self.brought:
            provide(Path(path), uri)


def spec_for(
    settings: Settings,
    teacher: ModelInfo,
    task: splits.TaskLike,
    train: TokenizedSplit,
    dev: TokenizedSplit,
    folder: Path,
    device: str,
    remote: str | None = None,
    elsewhere: bool = False,
) -> tuple[MemorySpec, list[str]]:
    """The artefacts that a search or a run with these settings needs, and notes on what was adapted.

    Outputs that would take more than `memory.spool_limit_gb`, or than is free on the disk of `folder`, are not
    stored: methods with features then run the teacher live, `kd` alone stores the logits only.

    `elsewhere`: as for `device.pick`.
    """
    task = splits.get_task(task)
    methods = set(settings.methods)
    lt, ls = teacher.layers, settings.student.layers
    pairs = layer_pairs(settings.loss.layers, lt, ls) if methods & USES_FEATURES else ()
    pair = global_pair(settings.loss.layers, lt, ls)
    memory_pair = pair if methods & USES_MEMORY else None
    where = select_device(device, elsewhere)
    precision = resolve_precision(settings.precision, where)
    # The memory's layer is always stored: a later search with a memory then needs no second pass.
    layers = tuple(sorted({pair[0]} | {t for t, _ in pairs}))
    stored, live, notes = train, False, []
    size, room, limited_by = _room(settings, teacher, task, train, layers, precision, folder)
    if methods & USES_TEACHER and size > room:
        said = f"the teacher's outputs on {len(train):,} examples would take {size / 1e9:.3g} GB, {limited_by}"
        if not methods & (USES_FEATURES | USES_MEMORY):
            layers = ()
            notes.append(f"{said}; only its logits are stored, which is all that kd needs.")
        else:
            live = True
            notes.append(f"{said}; {_live_cost(settings, teacher)}")
            if memory_pair is not None:
                layers = (memory_pair[0],)
                stored = _sample(settings, task, train, size, room)
                notes.append(f"the teacher memory stands for a sample of {len(stored):,} examples.")
    wanted = settings.memory.centroids or task.default_centroids
    if wanted > len(stored) and memory_pair is not None:
        notes.append(f"memory.centroids: {wanted} lowered to {len(stored)}, the number of training examples.")
    spec = MemorySpec(
        teacher=teacher,
        task=task,
        train=train,
        dev=dev,
        layers=layers,
        stored=stored,
        live=live,
        pairs=pairs,
        memory_pair=memory_pair,
        centroids=min(wanted, len(stored)),
        student=settings.student,
        padding=settings.data.padding,
        algorithm=settings.memory.algorithm,
        precision=precision,
        device=where.type,
        seed=settings.search.seed,
        folder=folder.absolute(),  # workers elsewhere read it, too
        remote=remote,
    )
    return spec, notes


def _room(
    settings: Settings,
    teacher: ModelInfo,
    task: splits.Task,
    train: TokenizedSplit,
    layers: tuple[int, ...],
    precision: str,
    folder: Path,
) -> tuple[int, float, str]:
    """Bytes of the outputs, bytes that they may take, and what limits them, in words."""
    positions = len(train) * train.max_length if settings.data.padding == "published" else int(train.offsets[-1])
    size = sizes.outputs_bytes(positions, len(train), teacher.hidden_size, len(layers), len(teacher.labels))
    limit = settings.memory.spool_limit_gb * 1e9
    by = f"over memory.spool_limit_gb ({settings.memory.spool_limit_gb:g})"
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = _SHARE_OF_FREE * shutil.disk_usage(existing).free
    if limit <= free or size <= free:
        return size, limit, by
    order = label_order(teacher, task)
    key = teacher_outputs.key(fingerprint(teacher.path), order, train, layers, settings.data.padding, precision)
    if (folder / f"outputs-{key}" / artifacts.MANIFEST).is_file():
        return size, limit, by
    return size, free, f"and {free / 0.9e9:.3g} GB are free on the disk of {folder}"


def _live_cost(settings: Settings, teacher: ModelInfo) -> str:
    """What a live teacher costs: its forward pass beside the student's forward and backward (three forwards)."""
    student = (
        settings.student.layers * ((settings.student.hidden_size or teacher.hidden_size) / teacher.hidden_size) ** 2
    )
    times = 1 + teacher.layers / (3 * student)
    return f"the teacher runs live in every step, which makes a step about {times:.2g} times plain fine-tuning's."


def _sample(settings: Settings, task: splits.Task, train: TokenizedSplit, size: int, room: float) -> TokenizedSplit:
    """Examples for a live teacher's memory: as many as fit, at most what k-means starts from, at least K.

    The longest example is among them, so that no later one is wider than the memory.
    """
    k = settings.memory.centroids or task.default_centroids
    count = min(len(train), max(k, min(teacher_memory.SAMPLE_EXAMPLES, int(len(train) * room / size))))
    rows = np.random.default_rng(_SAMPLE_SEED).permutation(len(train))[:count]
    longest = int(train.lengths.argmax())
    if longest not in rows:
        rows[0] = longest
    return train.take(np.sort(rows))


def fingerprint(path: str) -> str:
    """A name for a model's weights: the digest of its files, or of a hub id and its commit."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return artifacts.folder_digest(folder, _WEIGHTS)
    return artifacts.digest(path, getattr(load_config(path), "_commit_hash", None))
