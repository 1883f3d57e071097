import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from fsd_tune import losses
from fsd_tune.data import splits
from fsd_tune.data.batching import collate
from fsd_tune.data.ragged import ResidentSplit
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.memory.targets import LiveTeacher, ResidentTeacher
from fsd_tune.models.inference import predict
from fsd_tune.models.layers import layer_pairs
from fsd_tune.models.loading import label_order, load_classifier
from fsd_tune.settings.configuration import resolve
from fsd_tune.settings.methods import METHODS, NEEDS_EQUAL_WIDTHS, USES_FEATURES, default, term_weights
from fsd_tune.training import distiller as training_distiller
from fsd_tune.training import loss_terms as training_terms
from fsd_tune.training import setup as training_setup
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import load_inputs
from fsd_tune.training.loss_terms import PAIRED, loss_terms
from fsd_tune.training.optimizer import clip_gradients
from tests.helpers import reference

CPU = torch.device("cpu")
TIMES = ("train_seconds", "evaluation_seconds")


def quiet(what, done, total):
    pass


@pytest.fixture
def bench(load_settings, glue, teacher, tmp_path):
    def make(method="fsd_ilg", task="sst2", used_teacher=teacher, folder=tmp_path / "memory", shape=None, **overrides):
        settings = load_settings(method=method, **overrides)
        inputs = load_inputs(settings, task, str(used_teacher), glue)
        spec = MemorySpec.from_inputs(settings, inputs, folder, "cpu")
        prepared = build_artifacts(spec, quiet)
        return DistillerFactory(settings, spec, open_arrays(prepared, mapped=True)), resolve(settings, shape)

    return make


def of_method(config, method):
    """A configuration for another method, with its defaults for the hyperparameters that are missing."""
    missing = {name: default(method, name) for name in METHODS[method].hyperparameters if name not in config}
    return config | {"method": method} | missing


def run(distiller):
    records = []
    while not distiller.done:
        records.append({k: v for k, v in distiller.train_to_next_evaluation().items() if k not in TIMES})
    return records


def terms_of(distiller, rows):
    return loss_terms(distiller.setup, distiller.model, distiller.memory, distiller.weights.keys(), rows)


def values(distiller, rows):
    return {
        name: value.item()
        for name, value in loss_terms(
            distiller.setup, distiller.model, distiller.memory, distiller.weights.keys(), rows
        ).items()
    }


@pytest.mark.parametrize("method", METHODS)
def test_a_run_reports_at_equal_fractions_with_the_methods_total(bench, method):
    workbench, config = bench(method)
    records = run(workbench.distiller(config, 4))
    total = math.ceil(40 / 8) * 2
    assert [record["report"] for record in records] == [1, 2, 3, 4]
    assert [record["step"] for record in records] == [math.ceil(total * r / 4) for r in (1, 2, 3, 4)]
    factors = term_weights(method, config)
    for record in records:
        assert record["loss"] == pytest.approx(
            sum(weight * record[f"loss/{name}"] for name, weight in factors.items()), rel=1e-4
        )
        assert {name for name in record if name.startswith("weighted/")} == {f"weighted/{name}" for name in factors}
        assert 0 <= record["accuracy"] <= 1


def test_learning_happens(bench):
    workbench, config = bench("fsd_ilg", epochs=30, learning_rate=3e-3)
    records = run(workbench.distiller(config, 4))
    assert records[-1]["loss"] < 0.8 * records[0]["loss"]
    assert records[-1]["loss/intra"] < records[0]["loss/intra"]
    assert records[-1]["accuracy"] > 0.9, "the generated sentences give their label away"


@pytest.mark.parametrize("method", ["ce", "fsd_ilg"])
@pytest.mark.parametrize("accumulation, batching", [(1, "random"), (3, "random"), (3, "grouped")])
def test_restored_equals_uninterrupted(bench, tmp_path, method, accumulation, batching):
    changes = {"gradient_accumulation": accumulation, "warmup_ratio": 0.2, "data.batching": batching}
    workbench, config = bench(method, **changes)
    whole = run(workbench.distiller(config, 4))
    first = workbench.distiller(config, 4)
    first.train_to_next_evaluation()
    first.train_to_next_evaluation()
    first.save(tmp_path / "checkpoint")
    # Something else in between must not matter: another run in the same process uses the random state.
    run(workbench.distiller(config, 2))
    second = workbench.distiller(config, 4)
    second.load(tmp_path / "checkpoint")
    assert run(second) == whole[2:]


@pytest.mark.parametrize("method", ["kd", "fsd_ilg"])
def test_saved_between_two_reports_equals_uninterrupted(bench, tmp_path, method):
    workbench, config = bench(method, epochs=4)
    whole = run(workbench.distiller(config, 2))
    first = workbench.distiller(config, 2)
    first.train_to_next_evaluation()
    assert not first.train_towards_evaluation(pause=lambda: first.step % 3 == 0)
    assert first.report == 1 and first.steps_total // 2 < first.step < first.steps_total
    first.save(tmp_path / "checkpoint")
    written = sum(path.stat().st_size for path in (tmp_path / "checkpoint").rglob("*") if path.is_file())
    assert first.checkpoint_bytes <= written <= 1.2 * first.checkpoint_bytes + 100_000
    run(workbench.distiller(config, 2))
    second = workbench.distiller(config, 2)
    second.load(tmp_path / "checkpoint")
    assert second.step == first.step and run(second) == whole[1:]


def test_reused_equals_fresh(bench):
    workbench, config = bench("fsd_ilg")
    other = config | {"method": "kd", "learning_rate": 5e-3}
    run(workbench.distiller(other, 2))
    reused = run(workbench.distiller(config, 4))
    fresh, _ = bench("fsd_ilg")
    assert run(fresh.distiller(config, 4)) == reused


def test_a_shape_of_a_search_trains_as_it_does_alone(bench, tmp_path):
    shapes = {
        "student.layers": "{choice: [2, 3]}",
        "student.start": "{choice: [teacher, every_other, random]}",
        "student.hidden_size": "{choice: [8, null]}",
        "loss.layers": "all",
    }
    workbench, _ = bench("fsd_ilg", shape={"layers": 2, "start": "teacher"}, **shapes)
    seen = set()
    # More shapes than a worker keeps, and back to the first one.
    for layers, start, width in [
        (2, "teacher", None),
        (3, "random", 8),
        (3, "every_other", None),
        (2, "random", None),
    ] * 2:
        config = resolve(workbench.settings, {"layers": layers, "start": start, "hidden_size": width})
        distiller = workbench.distiller(config, 1)
        assert (distiller.model.config.num_hidden_layers, distiller.model.config.hidden_size) == (layers, width or 16)
        found = run(distiller)
        own = {"student.layers": layers, "student.start": start, "student.hidden_size": width or "null"}
        alone, single = bench("fsd_ilg", folder=tmp_path / f"memory-{layers}-{start}", **shapes | own)
        assert run(alone.distiller(single, 1)) == found, (layers, start, width)
        seen.add(found[0]["loss"])
    assert len(seen) == 4


@pytest.mark.parametrize("padding", ["masked", "published"])
@pytest.mark.parametrize("method", [method for method in METHODS if method != "ce"])
def test_served_equals_live(bench, teacher, method, padding):
    workbench, config = bench(method, **{"data.padding": padding, "loss.distance": "relative", "loss.layers": "all"})
    distiller = workbench.distiller(config, 1)
    distiller.model.eval()
    spec = workbench.spec
    held = workbench.arrays.memory
    live = LiveTeacher(
        load_classifier(str(teacher), splits.get_task("sst2")).eval(),
        label_order(spec.teacher, splits.get_task("sst2")),
        held,
        [t for t, _ in spec.pairs.get(2, ())],
        spec.memory_layer or 0,
        padding,
        "float32",
        CPU,
    )
    for seed in range(3):
        rows = np.random.default_rng(seed).permutation(40)[:8]
        served = values(distiller, rows)
        kept, distiller.setup = distiller.setup, replace(distiller.setup, targets=live)
        running = values(distiller, rows)
        distiller.setup = kept
        assert served.keys() == running.keys()
        for name, value in running.items():
            # Features are stored in half precision: 2^-11 relative, a little more after a logarithm.
            assert served[name] == pytest.approx(value, rel=5e-3, abs=5e-4), name


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("ce", "kd")])
def test_outputs_over_their_limit_train_with_a_live_teacher(bench, method):
    """As with served outputs; the memory too is the same when its sample is the whole split."""
    limits = {"memory.spool_limit_gb": 1e-9, "memory.centroids": 40}
    served, config = bench(method, **limits | {"memory.spool_limit_gb": 1})
    live, _ = bench(method, **limits)
    assert live.spec.live and live.arrays.outputs is None
    for a, b in zip(run(served.distiller(config, 3)), run(live.distiller(config, 3)), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-2), "features are stored in half precision"


@pytest.mark.parametrize("method", METHODS)
def test_padding_to_the_batch_equals_padding_to_the_maximum(bench, method, monkeypatch):
    workbench, config = bench(method)
    distiller = workbench.distiller(config, 1)
    distiller.model.eval()
    rows = np.arange(8)
    short = values(distiller, rows)
    # The student memory ends at the longest example of the split: nothing lies beyond it in any batch.
    width = int(workbench.spec.train.lengths.max())
    monkeypatch.setattr(
        training_setup, "collate", lambda data, rows, device, pad_to=None: collate(data, rows, device, width)
    )
    full = values(distiller, rows)
    assert short == pytest.approx(full, rel=1e-4, abs=1e-6)


def test_total_loss_equals_a_hand_written_step(bench, teacher):
    workbench, config = bench("fsd_ilg")
    distiller = workbench.distiller(config, 1)
    distiller.model.eval()
    spec, rows = workbench.spec, np.arange(8)
    terms = terms_of(distiller, rows)
    batch = collate(spec.train, rows, CPU)
    labels = batch.pop("labels")
    student = distiller.model(**batch, output_hidden_states=True)
    with torch.no_grad():
        own = load_classifier(str(teacher), splits.get_task("sst2")).eval()(**batch, output_hidden_states=True)
    mask = batch["attention_mask"]
    ((t, s),) = layer_pairs("penultimate", 4, 2)
    held = workbench.arrays.memory
    flat_t, flat_s = losses.flatten(own.hidden_states[t], mask), losses.flatten(student.hidden_states[s], mask)
    expected = (
        0.5 * losses.task_loss(student.logits, labels)
        + 0.5 * losses.kd_loss(own.logits, student.logits, 5.0)
        + losses.intra_loss(own.hidden_states[t], student.hidden_states[s], mask)
        + losses.local_loss(own.hidden_states[t], student.hidden_states[s], mask)
        + losses.global_loss(flat_t, flat_s, torch.tensor(held.centroids), distiller.memory, 0.5, "relative")
    )
    total = sum(weight * terms[name] for name, weight in distiller.weights.items())
    torch.testing.assert_close(total, expected, rtol=1e-3, atol=1e-4)


def test_the_matched_start_is_the_students_mean_over_each_cluster(bench):
    workbench, config = bench("fsd_ilg")
    distiller = workbench.distiller(config, 1)
    distiller.model.eval()
    spec, held = workbench.spec, workbench.arrays.memory
    batch = collate(spec.train, np.arange(len(spec.train)), CPU)
    mask = batch["attention_mask"]
    batch.pop("labels")
    with torch.no_grad():
        hidden = distiller.model(**batch, output_hidden_states=True).hidden_states[1]
    flat = losses.flatten(hidden, mask).numpy()
    for cluster in range(len(held.sizes)):
        expected = flat[held.clusters == cluster].mean(0)
        np.testing.assert_allclose(distiller.memory[cluster].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_student_memory_and_every_layer_are_trained_frozen_embeddings_are_not(bench):
    workbench, config = bench("fsd_ilg", **{"student.freeze_embeddings": "true"})
    distiller = workbench.distiller(config, 1)
    before = {name: value.clone() for name, value in distiller.model.state_dict().items()}
    memory = distiller.memory.detach().clone()
    distiller.train_to_next_evaluation()
    changed = {name for name, value in distiller.model.state_dict().items() if not torch.equal(value, before[name])}
    assert "bert.embeddings.word_embeddings.weight" not in changed
    assert {"bert.encoder.layer.0.output.dense.weight", "classifier.weight"} <= changed
    assert not torch.equal(memory, distiller.memory)


def test_a_diverging_run_says_so(bench):
    workbench, config = bench("kd", learning_rate=1.0)
    distiller = workbench.distiller(config | {"learning_rate": 1e30}, 4)
    record = distiller.train_to_next_evaluation()
    while "diverged" not in record and not distiller.done:
        record = distiller.train_to_next_evaluation()
    assert "is nan at step" in record["diverged"] or "is inf" in record["diverged"]


def test_regression_and_pairs_of_sentences(bench, tmp_path, base):
    from tests.helpers import tiny

    teacher = tiny.write_teacher(tmp_path / "regressor", base, num_labels=1, problem_type="regression")
    workbench, config = bench("fsd_ilg", task="stsb", used_teacher=teacher)
    records = run(workbench.distiller(config, 2))
    assert set(splits.get_task("stsb").metrics) <= set(records[-1])
    assert all(math.isfinite(records[-1][name]) for name in splits.get_task("stsb").metrics)


def test_bf16_is_close_to_float32(bench, tmp_path):
    exact, config = bench("fsd_ilg")
    rough, _ = bench("fsd_ilg", precision="bf16", folder=tmp_path / "other")
    rows = np.arange(8)
    results = []
    for workbench in (exact, rough):
        distiller = workbench.distiller(config, 1)
        distiller.model.eval()
        results.append(values(distiller, rows))
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=0.1, abs=0.02), name


def test_the_checkpoint_of_a_finished_run_is_a_plain_student(bench, tmp_path):
    workbench, config = bench("kd")
    distiller = workbench.distiller(config, 2)
    distiller.train_to_next_evaluation()
    distiller.save(tmp_path / "middle")
    distiller.train_to_next_evaluation()
    distiller.save(tmp_path / "end")
    assert (tmp_path / "middle" / "state.pt").is_file() and not (tmp_path / "end" / "state.pt").exists()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "end" / "student")
    assert loaded.config.id2label == {0: "negative", 1: "positive"}


def test_more_reports_than_steps_cost_no_more_evaluations(bench, monkeypatch):
    workbench, config = bench("kd", epochs=1, batch_size=16)
    distiller = workbench.distiller(config, 6)
    calls = []

    def counted(*arguments):
        calls.append(1)
        return predict(*arguments)

    monkeypatch.setattr(training_distiller, "predict", counted)
    records = run(distiller)
    assert distiller.steps_total == 3 and len(records) == 6 and len(calls) == 3
    assert [record["step"] for record in records] == [1, 1, 2, 2, 3, 3]
    assert records[0]["loss"] == records[1]["loss"] and records[4]["accuracy"] == records[5]["accuracy"]


def test_a_narrower_student_learns_from_a_wider_teacher(bench):
    """Structures are compared by Gram matrices, so widths may differ; the matched start is of the student's width."""
    narrow = {"student.start": "random", "student.hidden_size": 8, "loss.layers": "all"}
    workbench, config = bench("fsd_ilg", **narrow, epochs=1)
    longest = int(workbench.spec.train.lengths.max())
    for method in METHODS:
        if method in NEEDS_EQUAL_WIDTHS:
            continue
        distiller = workbench.distiller(of_method(config, method), 1)
        assert distiller.model.config.hidden_size == 8
        assert distiller.memory is None or distiller.memory.shape == (5, 8 * longest)
        before = [parameter.detach().clone() for parameter in distiller.model.parameters()]
        record = distiller.train_to_next_evaluation()
        assert "diverged" not in record and all(record[f"loss/{name}"] > 0 for name in distiller.weights)
        assert not all(map(torch.equal, before, distiller.model.parameters()))


@pytest.mark.parametrize("start", ["copy", "every_other", "last", "teacher", "random"])
def test_every_start_distils_with_a_memory_matched_to_it(bench, start):
    workbench, config = bench("fsd_ilg", **{"student.start": start})
    distiller = workbench.distiller(config, 1)
    spec, held = workbench.spec, workbench.arrays.memory
    batch = collate(spec.train, np.flatnonzero(held.clusters == 0), CPU)
    batch.pop("labels")
    with torch.no_grad():
        hidden = distiller.model.eval()(**batch, output_hidden_states=True).hidden_states[1]
    mean = losses.flatten(hidden, batch["attention_mask"]).mean(0)
    torch.testing.assert_close(distiller.memory[0, : len(mean)].detach(), mean, rtol=1e-4, atol=1e-5)
    assert "diverged" not in run(distiller)[0]


@pytest.mark.parametrize(
    ("layers", "expected"), [("all", [(2, 1)]), ("[[4, 2], [0, 1]]", [(4, 2), (0, 1)]), ("last", [(4, 2)])]
)
def test_terms_are_means_over_the_chosen_pairs_of_stored_layers(bench, teacher, layers, expected):
    workbench, config = bench("fsd_ilg", **{"loss.layers": layers})
    spec, memory_pair = workbench.spec, (4, 2) if layers == "last" else (3, 1)
    assert spec.pairs == {2: tuple(expected)} and spec.memory_pairs == {2: memory_pair}
    assert set(workbench.arrays.outputs.shards) == {t for t, _ in expected} | {memory_pair[0]}
    rows = np.arange(8)
    batch = collate(spec.train, rows, CPU)
    batch.pop("labels")
    own = load_classifier(str(teacher), splits.get_task("sst2")).eval()
    start = workbench.distiller(config, 1).model.eval()
    with torch.no_grad():
        theirs, ours = (model(**batch, output_hidden_states=True).hidden_states for model in (own, start))
    for method in USES_FEATURES:
        distiller = workbench.distiller(of_method(config, method), 1)
        distiller.model.eval()
        terms = values(distiller, rows)
        for name in terms.keys() & PAIRED.keys():
            loss = PAIRED[name]
            each = [float(loss(theirs[t], ours[s], batch["attention_mask"])) for t, s in expected]
            assert terms[name] == pytest.approx(sum(each) / len(each), rel=5e-3, abs=5e-4), (method, name)


@pytest.mark.parametrize("method", [*sorted(USES_FEATURES), "kd"])
def test_what_a_method_stores(load_settings, glue, teacher, tmp_path, method):
    """The layers of its pairs, and the memory's for every method: no later search pays another pass for it."""
    settings = load_settings(method=method, **{"loss.layers": "[[4, 2], [1, 1]]"})
    inputs = load_inputs(settings, "sst2", str(teacher), glue)
    spec = MemorySpec.from_inputs(settings, inputs, tmp_path, "cpu")
    assert spec.layers == ((3,) if method == "kd" else (1, 3, 4))


def test_the_published_total_loss(bench, teacher):
    """epsilon (sigma L_G + (1 - sigma)/2 (gamma L_I + (1 - gamma) L_L)) + L_KD over all positions, in loops."""
    epsilon, sigma, gamma, beta = 3.0, 0.4, 0.2, 0.7
    weights = f"{{epsilon: {epsilon}, sigma: {sigma}, gamma: {gamma}, beta: {beta}}}"
    published = {"data.padding": "published", "loss.weights": weights, "memory.algorithm": "published"}
    workbench, config = bench("fsd_ilg", **published, alpha=0.3, temperature=2.5)
    distiller = workbench.distiller(config, 1)
    distiller.model.eval()
    spec, rows = workbench.spec, np.arange(8)
    assert spec.train.lengths.max() < spec.train.max_length and len(set(spec.train.lengths[rows])) > 1
    terms = values(distiller, rows)
    total = sum(weight * terms[name] for name, weight in distiller.weights.items())

    batch = collate(spec.train, rows, CPU, pad_to=spec.train.max_length)
    labels = batch.pop("labels").numpy()
    with torch.no_grad():
        own = load_classifier(str(teacher), splits.get_task("sst2")).eval()(**batch, output_hidden_states=True)
        student = distiller.model(**batch, output_hidden_states=True)
    # The published pair: the last but one of each.
    t, s = (out.hidden_states[layer].double().numpy() for out, layer in ((own, 3), (student, 1)))
    memories = workbench.arrays.memory.centroids.astype(float), distiller.memory.detach().double().numpy()
    everywhere = np.ones(t.shape[:2], bool)
    l_g = reference.global_(t.reshape(8, -1), s.reshape(8, -1), *memories, beta, "raw")
    l_i, l_l = reference.intra(t, s, everywhere), reference.local(t, s, everywhere)
    logits = own.logits.double().numpy(), student.logits.double().numpy()
    l_kd = 0.3 * reference.cross_entropy(logits[1], labels) + 0.7 * reference.kd(*logits, 2.5)
    expected = epsilon * (sigma * l_g + (1 - sigma) / 2 * (gamma * l_i + (1 - gamma) * l_l)) + l_kd
    assert total == pytest.approx(expected, rel=2e-3)
    assert memories[1].std() == pytest.approx(1, abs=0.05), "the student memory starts as a standard normal"


@pytest.mark.parametrize("padding", ["masked", "published"])
def test_the_memorys_gradient_is_clipped_with_the_students_only_as_published(bench, padding, monkeypatch):
    workbench, config = bench("fsd_ilg", **{"data.padding": padding})
    distiller, given = workbench.distiller(config, 1), []

    def recorded(model, memory, together):
        given.append((memory is distiller.memory, together))

    monkeypatch.setattr(training_distiller, "clip_gradients", recorded)
    distiller.train_step()
    assert given == [(True, padding == "published")]


@pytest.mark.parametrize(("weights", "memory"), [(3.0, 4.0), (0.3, 4.0), (3.0, 0.4), (0.3, math.nan)])
@pytest.mark.parametrize("together", [False, True])
def test_gradients_are_clipped_at_norm_1(weights, memory, together):
    def gradient(norm, *shape):
        direction = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        return norm * direction / direction.norm()

    model, centroids = torch.nn.Linear(6, 1, bias=False), torch.nn.Parameter(torch.zeros(3, 5))
    model.weight.grad, centroids.grad = gradient(weights, 1, 6), gradient(memory, 3, 5)
    clip_gradients(model, centroids, together)
    norms = [math.hypot(weights, memory)] * 2 if together else [weights, memory]
    scales = [norm if math.isnan(norm) else 1 / max(norm, 1) for norm in norms]
    for found, given, scale in (
        (model.weight.grad, gradient(weights, 1, 6), scales[0]),
        (centroids.grad, gradient(memory, 3, 5), scales[1]),
    ):
        torch.testing.assert_close(found, scale * given, rtol=1e-5, atol=0, equal_nan=True)


@pytest.mark.parametrize("start", ["matched", "published"])
def test_a_run_with_the_published_memory(bench, start):
    """Most of its clusters are empty; nothing is divided by their sizes."""
    given = {"memory.algorithm": "published", "memory.centroids": 20, "student.memory_start": start}
    workbench, config = bench("fsd_g", **given)
    held = workbench.arrays.memory
    assert len(held.sizes) == 20 and (held.sizes == 0).any() and held.sizes.sum() == 40
    distiller = workbench.distiller(config, 2)
    if start == "matched":
        assert not distiller.memory[held.sizes == 0].any() and distiller.memory[held.sizes > 0].any(1).all()
    records = run(distiller)
    assert all("diverged" not in record and math.isfinite(record["loss/global"]) for record in records)


@pytest.mark.parametrize("method", sorted(USES_FEATURES - {"pkd"}))
@pytest.mark.parametrize("padding", ["masked", "published"])
def test_terms_of_several_pairs_are_equal_in_one_call(bench, method, padding, monkeypatch):
    """The way of a GPU, on a CPU: one call for all layer pairs, and data and targets that lie on the device."""
    overrides = {"loss.layers": "[[1, 1], [2, 2]]", "data.padding": padding}
    if padding == "published":
        overrides["student.memory_start"] = "published"
    workbench, config = bench(method, **overrides)
    one_by_one, together = (workbench.distiller(config, 1) for _ in range(2))
    assert len(one_by_one.setup.pairs) > 1
    outputs, memory = workbench.arrays.outputs, workbench.arrays.memory
    layers = sorted({t for t, _ in together.setup.pairs})
    resident = ResidentTeacher(outputs, memory if one_by_one.memory is not None else None, layers, CPU)
    together.setup = replace(together.setup, targets=resident, resident=ResidentSplit(together.setup.train, CPU))
    rows = np.arange(6)
    results = []
    for distiller in (one_by_one, together):
        on_gpu = distiller is together
        monkeypatch.setattr(training_terms, "_computes_pairs_together", lambda *_, on_gpu=on_gpu: on_gpu)
        distiller.model.eval()
        terms = terms_of(distiller, rows)
        sum(terms[name] * weight for name, weight in distiller.weights.items()).backward()
        gradient = torch.cat([p.grad.flatten() for p in distiller.model.parameters() if p.grad is not None])
        results.append(({name: value.item() for name, value in terms.items()}, gradient))
    (expected, gradient), (got, other) = results
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert (gradient - other).norm() < 1e-5 * gradient.norm()
