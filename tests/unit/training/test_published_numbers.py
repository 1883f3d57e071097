"""Our losses, memory and training beside numbers that the published code gave.

`tests/data/published_numbers.json` holds what github.com/maroo-sky/FSD at 5004d75 gave, run as it is under
transformers 2.6.0 and torch 2.13 on a CPU in float64: losses with their gradients, a teacher memory, and trainings of
ten steps. A tensor is recorded as its norm and its product with fixed normal numbers. All inputs are made from seeds of
numpy generators, which are the same on every machine.
"""

import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from fsd_tune import losses
from fsd_tune.cka import centred_gram
from fsd_tune.data.batching import TokenizedSplit
from fsd_tune.data.splits import get_task
from fsd_tune.memory import published_kmeans
from fsd_tune.memory.targets import LiveTeacher
from fsd_tune.memory.teacher_memory import TeacherMemory
from fsd_tune.memory.teacher_outputs import TeacherOutputs
from fsd_tune.settings.methods import term_weights
from fsd_tune.settings.schema import Optimizer, Weights
from fsd_tune.training import distiller as training
from fsd_tune.training.setup import TrainingSetup
from tests import ROOT

RECORDED = json.loads((ROOT / "tests" / "data" / "published_numbers.json").read_text())
CPU = torch.device("cpu")
BATCH, POSITIONS, WIDTH, CENTROIDS, CLASSES = 8, 12, 16, 6, 2
TEACHER_LAYERS, STUDENT_LAYERS, VOCABULARY, EXAMPLES, EPOCHS = 12, 6, 50, 40, 2
ALPHA, TEMPERATURE, BETA, GAMMA_M = 0.3, 5.0, 30.0, 0.7
EPSILON_SIGMA_GAMMA = {"epsilon": 2.0, "sigma": 0.4, "gamma": 0.3, "beta": GAMMA_M}
# Each published system as the method and the weights that are the same.
SYSTEMS = {
    "FSD_I": ("fsd_i", {"beta": BETA}),
    "FSD_L": ("fsd_l", {"beta": BETA}),
    "FSD_G": ("fsd_g", {"beta": BETA}),
    "FSD_IL": ("fsd_il", Weights(**EPSILON_SIGMA_GAMMA | {"sigma": 0.0}).hyperparameters()),
    "FSD_ILG": ("fsd_ilg", Weights(**EPSILON_SIGMA_GAMMA).hyperparameters()),
}


def recorded_form(tensor):
    flat = tensor.detach().double().flatten()
    return [float(flat.norm()), float(flat @ torch.from_numpy(np.random.default_rng(7).normal(size=len(flat))))]


def difference(ours, theirs):
    """The largest difference of two lists, relative to the largest number of theirs."""
    assert len(ours) == len(theirs)
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / max(map(abs, theirs), default=1.0)


@cache
def named_losses():
    """Our value of each recorded loss, and the tensors that it has gradients to: features, memory and logits."""
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(1, 1, WIDTH))
    features = [torch.from_numpy(rng.normal(size=(BATCH, POSITIONS, WIDTH)) + shared) for _ in range(2)]
    memories = [torch.from_numpy(rng.normal(size=(CENTROIDS, POSITIONS * WIDTH))) for _ in range(2)]
    logits = [torch.from_numpy(rng.normal(size=(BATCH, CLASSES))) for _ in range(2)]
    leaves = [pair[1].requires_grad_() for pair in (features, memories, logits)]
    distances, cosines = losses.distances_and_cosines(losses.flatten(features[0]), memories[0])
    targets = losses.GlobalTargets(distances, cosines, centred_gram(memories[0]))
    parts = losses.global_terms(targets, losses.flatten(features[1]), memories[1], "raw")
    terms = {
        "task": losses.task_loss(logits[1], torch.arange(BATCH) % 2),
        "kd": losses.kd_loss(logits[0], logits[1], TEMPERATURE),
        "intra": losses.intra_loss(*features),
        "local": losses.local_loss(*features),
        "global": losses.global_sum(parts, GAMMA_M),
    }
    named = terms | {f"global/{name}": part for name, part in parts.items()}
    for system, (method, weights) in SYSTEMS.items():
        weights = term_weights(method, {"alpha": ALPHA, **weights})
        named[system] = torch.stack([weight * terms[term] for term, weight in weights.items()]).sum()
    return named, leaves


@pytest.mark.parametrize("name", RECORDED["losses"])
def test_a_loss_and_its_gradients_equal_the_published_code(name):
    named, leaves = named_losses()
    recorded = RECORDED["losses"][name]
    assert float(named[name].detach()) == pytest.approx(recorded["value"], rel=1e-8)
    gradients = torch.autograd.grad(named[name], leaves, retain_graph=True, allow_unused=True)
    for gradient, theirs in zip(gradients, recorded["gradients"], strict=True):
        ours = [0.0, 0.0] if gradient is None else recorded_form(gradient)
        assert ours == pytest.approx(theirs, rel=1e-8, abs=1e-12 if not any(theirs) else 1e-8 * theirs[0])


def test_the_memory_equals_the_published_code():
    rng = np.random.default_rng(2)
    groups = rng.normal(size=(4, POSITIONS * WIDTH))
    features = groups[rng.integers(0, 4, 25)] + 0.5 * rng.normal(size=(25, POSITIONS * WIDTH))
    layer = TEACHER_LAYERS - 1
    outputs = TeacherOutputs(
        logits=np.zeros((25, CLASSES), np.float32),
        offsets=np.arange(26, dtype=np.int64) * POSITIONS,
        shards={layer: [features.astype(np.float16).reshape(25 * POSITIONS, WIDTH)]},
        shard_starts=np.asarray([0, 25]),
    )
    centroids = torch.from_numpy(published_kmeans.cluster(outputs, layer, CENTROIDS, lambda *_: None, CPU)[0])
    recorded = RECORDED["memory"]
    assert difference(recorded_form(centroids), recorded["centroids"]) < 1e-5
    assert difference(centroids.norm(dim=1).tolist(), recorded["norms"]) < 1e-5


def bert(layers, seed):
    """A BERT in float64 without dropout: LayerNorms near one, all other weights normal with deviation 0.3."""
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * WIDTH, max_position_embeddings=POSITIONS, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, num_labels=CLASSES,
    )  # fmt: skip
    model = BertForSequenceClassification(config).double()
    weights = {}
    for index, (name, value) in enumerate(sorted(model.state_dict().items())):
        normal = 0.3 * np.random.default_rng([seed, index]).normal(size=value.shape)
        weights[name] = torch.from_numpy(1 + 0.1 * normal if name.endswith("LayerNorm.weight") else normal)
    model.load_state_dict(weights)
    return model


def split():
    rng = np.random.default_rng(4)
    lengths = rng.integers(5, POSITIONS + 1, EXAMPLES)
    real = np.arange(POSITIONS) < lengths[:, None]
    ids = rng.integers(5, VOCABULARY, (EXAMPLES, POSITIONS))
    types = np.arange(POSITIONS) >= lengths[:, None] // 2
    labels = rng.integers(0, 2, EXAMPLES)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenizedSplit(ids[real].astype(np.int32), types[real].astype(np.int8), offsets, labels, 0, POSITIONS)


@cache
def trained(method):
    """Our losses and gradient norms of all steps, the first gradients, and the student before and after them."""
    rng = np.random.default_rng(6)
    centroids = rng.normal(size=(CENTROIDS, POSITIONS * WIDTH))
    centroids[CENTROIDS // 2 :] = 0
    student_memory = torch.from_numpy(rng.normal(size=(CENTROIDS, POSITIONS * WIDTH)))
    has_memory = method in ("fsd_g", "fsd_ilg")
    unused: Any = np.zeros((EXAMPLES, CENTROIDS), np.float32)
    in_float64: Any = centroids
    memory = TeacherMemory(in_float64, unused, unused, unused, unused) if has_memory else None
    # glue_with_cka_l.py compares the last layers, the other scripts the penultimate ones.
    before = 0 if method == "fsd_l" else 1
    pair = (TEACHER_LAYERS - before, STUDENT_LAYERS - before)
    config = {
        "method": method, "alpha": ALPHA, "temperature": TEMPERATURE, "beta": BETA, "gamma_m": GAMMA_M,
        "learning_rate": 1e-3, "epochs": EPOCHS, "batch_size": BATCH, "warmup_ratio": 0.0, "weight_decay": 0.0,
        "gradient_accumulation": 1,
    }  # fmt: skip
    if method == "fsd_ilg":
        config |= Weights(**EPSILON_SIGMA_GAMMA).hyperparameters()
    teacher = bert(TEACHER_LAYERS, 8).eval()
    targets = LiveTeacher(
        teacher, [0, 1], memory, [pair[0]], TEACHER_LAYERS - 1, "published", "float32", CPU
    )  # fmt: skip
    setup = TrainingSetup(
        task=get_task("rte"), train=split(), dev=split(), config=config, targets=targets, pairs=(pair,),
        memory_layer=STUDENT_LAYERS - 1, distance="raw", padding="published", reports=1, seed=0, precision="float32",
        device=CPU, optimizer=Optimizer(clipping="together", epsilon="published", accumulation="published"),
    )  # fmt: skip
    student = bert(STUDENT_LAYERS, 9)
    start = {name: recorded_form(value) for name, value in student.state_dict().items()}
    distiller = training.Distiller(setup, student, student_memory if has_memory else None)
    step_losses: list[float] = []
    norms: list[float] = []
    first_gradients: dict[str, list[float]] = {}
    with pytest.MonkeyPatch.context() as patch:

        def record_and_clip(model, memory, together):
            assert together, "published: one norm over student and memory"
            gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
            for name, gradient in () if first_gradients else gradients.items():
                first_gradients[name] = recorded_form(gradient)
            parameters = [*model.parameters(), *([] if memory is None else [memory])]
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, 1.0)))

        patch.setattr(training, "clip_gradients", record_and_clip)
        for epoch in range(EPOCHS):
            rows = np.random.default_rng([5, epoch]).permutation(EXAMPLES)
            for first in range(0, EXAMPLES, BATCH):
                step_losses.append(float(distiller.train_on(rows[first : first + BATCH])["total"]))
    assert distiller.step == distiller.steps_total
    end = {name: recorded_form(value) for name, value in distiller.model.state_dict().items()}
    return step_losses, norms, first_gradients, start, end


@pytest.mark.parametrize("method", RECORDED["training"])
def test_a_training_equals_the_published_code(method):
    recorded = RECORDED["training"][method]
    step_losses, norms, first_gradients, _, _ = trained(method)
    assert step_losses[0] == pytest.approx(recorded["losses"][0], rel=1e-6)
    assert norms[0] == pytest.approx(recorded["norms"][0], rel=1e-6)
    assert difference(step_losses, recorded["losses"]) < 1e-3
    large = {name: theirs for name, theirs in recorded["gradient"].items() if max(map(abs, theirs)) > 1e-9}
    assert len(large) > 50
    for name, theirs in large.items():
        assert difference(first_gradients[name], theirs) < 1e-4, name


@pytest.mark.parametrize("method", RECORDED["training"])
def test_the_student_after_training_equals_the_published_one(method):
    """The students' distance is below a millionth of the way that they went; AdamW's usual epsilon makes it 0.01."""
    recorded = RECORDED["training"][method]["final"]
    _, _, _, start, end = trained(method)
    apart = math.sqrt(sum((end[name][1] - theirs[1]) ** 2 for name, theirs in recorded.items()))
    moved = math.sqrt(sum((start[name][1] - theirs[1]) ** 2 for name, theirs in recorded.items()))
    assert apart < 1e-6 * moved
