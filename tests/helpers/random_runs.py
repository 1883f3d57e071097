"""Training runs on random arrays and tiny random models: nothing is read from disk, and no tokenizer is needed."""

import numpy as np
import torch

from fsd_tune.data.batching import TokenizedSplit
from fsd_tune.data.splits import get_task
from fsd_tune.memory.targets import CachedTeacher, LiveTeacher
from fsd_tune.memory.teacher_memory import TeacherMemory
from fsd_tune.memory.teacher_outputs import TeacherOutputs
from fsd_tune.models.loader import new_model
from fsd_tune.settings.methods import HYPERPARAMETERS, USES_FEATURES, USES_MEMORY, USES_TEACHER, default
from fsd_tune.settings.schema import Optimizer
from fsd_tune.training.distiller import Distiller
from fsd_tune.training.setup import TrainingSetup
from tests.helpers import families

CPU = torch.device("cpu")
EXAMPLES, LENGTH, BATCH, CENTROIDS, VOCABULARY = 16, 10, 4, 3, 100
TEACHER_LAYERS, STUDENT_LAYERS, HIDDEN = 2, 1, families.HIDDEN
ONE_PAIR = ((2, 1),)
FIVE_PAIRS = ((0, 0), (1, 0), (2, 0), (1, 1), (2, 1))


def split(types=True, full=False):
    """Examples of different lengths, or all of the greatest."""
    rng = np.random.default_rng(0)
    lengths = np.full(EXAMPLES, LENGTH) if full else rng.integers(3, LENGTH + 1, EXAMPLES)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(5, VOCABULARY, offsets[-1]).astype(np.int32)
    kinds = np.zeros(len(ids), np.int8) if types else None
    return TokenizedSplit(ids, kinds, offsets, rng.integers(0, 2, EXAMPLES), 0, LENGTH)


def outputs(data, padding):
    """A teacher's outputs for `data` of all its layers."""
    rng = np.random.default_rng(1)
    lengths = data.lengths if padding == "masked" else np.full(len(data), LENGTH)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shards = {
        layer: [rng.standard_normal((offsets[-1], HIDDEN)).astype(np.float16)] for layer in range(TEACHER_LAYERS + 1)
    }
    logits = rng.standard_normal((len(data), 2)).astype(np.float32)
    return TeacherOutputs(logits, offsets, shards, np.asarray([0, len(data)]))


def memory():
    """A teacher memory for `EXAMPLES` examples."""
    rng = np.random.default_rng(2)
    centroids = rng.standard_normal((CENTROIDS, LENGTH * HIDDEN)).astype(np.float32)
    distances, cosines = (rng.random((EXAMPLES, CENTROIDS)).astype(np.float32) + part for part in (1, 0))
    clusters = np.arange(EXAMPLES, dtype=np.int32) % CENTROIDS
    return TeacherMemory(centroids, np.bincount(clusters), clusters, distances, cosines)


def classifier(family="bert", layers=STUDENT_LAYERS):
    torch.manual_seed(0)
    return new_model(families.config(family, layers, VOCABULARY))


def targets(method, pairs, padding, live, precision, device, data):
    """The stored or the live teacher of a method; None for `ce`."""
    if method not in USES_TEACHER:
        return None
    held = memory() if method in USES_MEMORY else None
    layers = sorted({t for t, _ in pairs}) if method in USES_FEATURES else []
    if not live:
        return CachedTeacher(outputs(data, padding), held, layers, device)
    teacher = classifier(layers=TEACHER_LAYERS).to(device).eval()
    return LiveTeacher(teacher, (1, 0), held, layers, TEACHER_LAYERS, padding, precision, device)


PUBLISHED_STEPS = Optimizer(clipping="together", epsilon="published", accumulation="published")


def distiller(
    method, family="bert", pairs=ONE_PAIR, padding="masked", live=False, precision="float32", device=CPU, data=None,
    distance="relative", accumulation=1, layers=STUDENT_LAYERS,
):  # fmt: skip
    """A run at step 0."""
    data = split() if data is None else data
    config = {name: default(method, name) for name in HYPERPARAMETERS}
    config |= {"method": method, "batch_size": BATCH, "epochs": 2, "gradient_accumulation": accumulation}
    setup = TrainingSetup(
        task=get_task("sst2"), train=data, dev=data, config=config,
        targets=targets(method, pairs, padding, live, precision, device, data),
        pairs=pairs if method in USES_FEATURES else (), memory_layer=STUDENT_LAYERS, distance=distance,
        padding=padding, optimizer=PUBLISHED_STEPS if padding == "published" else Optimizer(),
        reports=2, seed=0, precision=precision, device=device,
    )  # fmt: skip
    start = torch.from_numpy(memory().centroids) if method in USES_MEMORY else None
    made = Distiller(setup, classifier(family, layers), start)
    made.model.train()
    return made
