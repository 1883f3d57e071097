"""`fsd-tune analyze`: its numbers against loops in float64, its identities, what it writes and what it refuses."""

import base64
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification, BertTokenizer

from fsd_tune.cli import main
from fsd_tune.data.batching import tokenize
from fsd_tune.data.splits import get_task, load_split
from fsd_tune.errors import InputError
from fsd_tune.evaluation.analysis import geometry, inputs
from fsd_tune.evaluation.analysis.api import analysis_lines, analyze
from fsd_tune.memory import teacher_memory, teacher_outputs
from fsd_tune.models.loading import load_classifier, load_tokenizer
from fsd_tune.progress import Display
from fsd_tune.report import html_report
from tests.helpers import reference, result_folders, tiny

CPU = torch.device("cpu")


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """Narrower than the teacher, and of two layers."""
    folder = tmp_path_factory.mktemp("student") / "model"
    torch.manual_seed(3)
    BertForSequenceClassification(tiny.config(2, hidden=8)).save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def dev(teacher, glue):
    return tokenize(load_split(get_task("sst2"), "dev", glue), load_tokenizer(str(teacher)), 32)


@pytest.fixture(scope="module")
def stored(teacher, student, dev, tmp_path_factory):
    """Teacher's and student's outputs on dev, all layers."""
    made = []
    for path, layers in ((teacher, 5), (student, 3)):
        folder = tmp_path_factory.mktemp("outputs") / "made"
        model = load_classifier(str(path), get_task("sst2"))
        teacher_outputs.write_outputs(folder, model, (0, 1), dev, range(layers), "masked", "float32", CPU, quiet)
        made.append(teacher_outputs.read_outputs(folder, mapped=True))
    return made


def features(path, dev, layer):
    """Token features [n, H] of each example, one forward pass each, in float64 of half precision."""
    model = load_classifier(str(path), get_task("sst2")).eval()
    found = []
    for row in range(len(dev)):
        ids = torch.from_numpy(dev.ids[dev.offsets[row] : dev.offsets[row + 1]].astype(np.int64))[None]
        with torch.no_grad():
            hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]
        found.append(hidden.half().double().numpy())
    return found


def flattened(examples):
    longest = max(len(one) for one in examples)
    return np.stack([np.concatenate([one.ravel(), np.zeros((longest - len(one)) * one.shape[1])]) for one in examples])


def by_loops(points):
    """Distance and cosine of every pair of rows."""
    distances, cosines = [], []
    for i in range(len(points)):
        for j in range(i + 1, len(points)):
            x, y = points[i], points[j]
            distances.append(float(np.sqrt(sum((x - y) ** 2))))
            cosines.append(float(sum(x * y) / (np.sqrt(sum(x * x)) * np.sqrt(sum(y * y)))))
    return distances, cosines


def gap_by_loops(teacher, student):
    """Mean and standard deviation of |teacher - student|."""
    values = [abs(a - b) for a, b in zip(teacher, student, strict=True)]
    mean = sum(values) / len(values)
    return {"mean": mean, "deviation": (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5}


def check_gap(found, teacher, student):
    (d_t, c_t), (d_s, c_s) = teacher, student
    relative = [[value * len(d) / sum(d) for value in d] for d in (d_t, d_s)]
    assert found["pairs"] == len(d_t)
    for key, both in {"distance": (d_t, d_s), "relative_distance": relative, "cosine": (c_t, c_s)}.items():
        # A feature that lies between two numbers of half precision may be rounded either way.
        assert found[key] == pytest.approx(gap_by_loops(*both), rel=2e-3, abs=1e-5)


def test_gaps_against_loops(teacher, student, stored, dev):
    theirs, ours = features(teacher, dev, 3), features(student, dev, 1)
    expected = []
    for examples in (theirs, ours):
        pairs = [by_loops(one) for one in examples]
        expected.append(tuple([value for pair in pairs for value in pair[i]] for i in (0, 1)))
    intra = [geometry.intra_pairs(outputs, layer, len(dev)) for outputs, layer in zip(stored, (3, 1), strict=True)]
    check_gap(geometry.gap(*intra), *expected)
    local = [
        geometry.local_pairs(geometry.example_gram(outputs, layer))
        for outputs, layer in zip(stored, (3, 1), strict=True)
    ]
    check_gap(geometry.gap(*local), by_loops(flattened(theirs)), by_loops(flattened(ours)))


def test_cka_of_all_layers_against_loops(teacher, student, stored, dev):
    intra = geometry.intra_cka(*stored)
    local = geometry.local_cka(*([geometry.example_gram(one, layer) for layer in sorted(one.shards)] for one in stored))
    assert np.shape(intra) == np.shape(local) == (3, 5)
    for t, s in ((0, 0), (4, 1), (2, 2)):
        theirs, ours = features(teacher, dev, t), features(student, dev, s)
        mean = np.mean([reference.cka(x, y) for x, y in zip(theirs, ours, strict=True)])
        assert intra[s][t] == pytest.approx(mean, abs=1e-4)
        assert local[s][t] == pytest.approx(reference.cka(flattened(theirs), flattened(ours)), abs=1e-4)


def test_products_with_centroids_and_with_means(stored, dev, teacher):
    points = flattened(features(teacher, dev, 3))
    centroids = np.random.default_rng(0).normal(size=(3, points.shape[1] + 32)).astype(np.float32)
    wide = np.pad(points, ((0, 0), (0, 32)))
    together = np.concatenate([wide, centroids])
    assert geometry.example_gram(stored[0], 3, centroids).numpy() == pytest.approx(
        together @ together.T, rel=1e-3, abs=1e-2
    )

    clusters = np.arange(len(dev)) % 3 * 2  # 1 has no example
    means = np.stack([points[clusters == cluster].mean(0) for cluster in (0, 2, 4)])
    together = np.concatenate([points, means])
    found = geometry.with_means(geometry.example_gram(stored[0], 3), clusters).numpy()
    assert found == pytest.approx(together @ together.T, rel=1e-3, abs=1e-2)


def test_the_map_counts_every_pair_once():
    rng = np.random.default_rng(1)
    pairs = [(rng.uniform(1, 3 + i, 500), rng.uniform(-1, 1, 500)) for i in range(2)]
    found = geometry.cosine_euclidean(*pairs)
    for name, (distances, cosines) in zip(("teacher", "student"), pairs, strict=True):
        counts = np.zeros((40, 40), int)
        for d, c in zip(distances, cosines, strict=True):
            row = min(np.searchsorted(found["distance"], d, "right") - 1, 39)
            counts[row, min(np.searchsorted(found["cosine"], c, "right") - 1, 39)] += 1
        assert counts.sum() == 500 and counts.tolist() == found[name]


def test_token_pairs_that_are_held_are_bounded():
    lengths = np.array([5, 5, 3, 2])  # 10, 10, 3 and 1 pairs
    assert [geometry.examples_within(lengths, most) for most in (9, 10, 22, 23, 24)] == [1, 1, 2, 3, 4]


# ---------------------------------------------------------------- the whole


def plan(teacher, student, glue, output, **more):
    given = {"task": "sst2", "search": None, "memory": None, "examples": 20, "seed": 0, "overwrite": False} | more
    return inputs.plan_analysis(teacher=str(teacher), student=str(student), data=glue, output=output, **given)


@pytest.fixture(scope="module")
def searched(teacher, student, glue, tmp_path_factory):
    """A search's folder with an analysis of a student in it, and what the analysis gave."""
    folder = result_folders.write_search(tmp_path_factory.mktemp("search") / "R", trials=3, study=False)
    found = analyze(plan(teacher, student, glue, folder / "analysis"), "cpu", Display(quiet=True))
    return folder, found


def test_a_narrower_student_with_fewer_layers(searched):
    folder, found = searched
    made = folder / "analysis"
    assert found == json.loads((made / "analysis.json").read_text())
    assert sorted(path.name for path in made.iterdir()) == [
        "analysis.json", "cka.png", "gaps.png", "manifest.json", "map.png", "tsne.png"
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made.glob("*.png"))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert np.shape(found["cka"]["intra"]) == np.shape(found["cka"]["local"]) == (3, 5)
    assert [(row["teacher_layer"], row["student_layer"]) for row in found["gaps"]] == [(2, 1), (3, 1), (4, 2)]
    assert (found["sample"]["examples"], found["sample"]["of"], found["sample"]["seed"]) == (20, 24, 0)
    assert len(found["tsne"]["student"]["examples"]) == len(found["tsne"]["labels"]) == 20
    assert len(found["tsne"]["teacher"]["centroids"]) == 2 and found["tsne"]["words"] == ["negative", "positive"]
    assert "3 of the teacher" in "\n".join(analysis_lines(found, made))


def test_the_report_has_the_analysis(searched):
    folder, found = searched
    text = (folder / "report.html").read_text()
    for name in ("cka", "gaps", "map", "tsne"):
        assert f'id="analysis_{name}"' in text
        assert base64.b64encode((folder / "analysis" / f"{name}.png").read_bytes()).decode() in text
    assert "Student beside teacher" in text and 'id="similarity"' not in text
    assert f"({found['gaps'][0]['intra']['pairs']:,} pairs)" in text
    (folder / "analysis" / "map.png").rename(folder / "analysis" / "away.png")
    assert "Not drawn: the file analysis/map.png is missing" in html_report.write_report(folder).read_text()
    (folder / "analysis" / "away.png").rename(folder / "analysis" / "map.png")


def test_a_damaged_analysis_takes_no_report_with_it(searched, tmp_path):
    folder = tmp_path / "R"
    shutil.copytree(searched[0], folder)
    (folder / "analysis" / "analysis.json").write_text('{"cka": 3}')
    text = html_report.write_report(folder).read_text()
    assert "Not drawn" in text and "Leaderboard" in text


def test_a_teacher_is_like_itself(teacher, glue, tmp_path):
    found = analyze(plan(teacher, teacher, glue, tmp_path / "A"), "cpu", Display(quiet=True))
    for row in found["gaps"]:
        if row["teacher_layer"] == row["student_layer"]:
            for kind in ("intra", "local"):
                for key in ("distance", "relative_distance", "cosine"):
                    assert row[kind][key] == {"mean": 0.0, "deviation": 0.0}
    for table in found["cka"].values():
        assert np.diag(table) == pytest.approx(1, abs=1e-5) and np.array(table) == pytest.approx(np.array(table).T)
    assert found["tsne"]["teacher"] == found["tsne"]["student"]
    assert found["map"]["local"]["teacher"] == found["map"]["local"]["student"]


def test_a_memory_gives_the_centroids(teacher, student, glue, stored, tmp_path):
    for layer, k in ((3, 4), (2, 5)):
        teacher_memory.write_memory(tmp_path / f"memory-{layer}", stored[0], layer, k, "kmeans", quiet)
    made = plan(teacher, student, glue, tmp_path / "A", memory=tmp_path)
    assert made.memory == tmp_path / "memory-3" and len(made.centroids()) == 4
    whole = geometry.example_gram(stored[0], 3, made.centroids())
    # The centroids are means of the examples of dev that the memory was made of.
    clusters = teacher_memory.read_memory(tmp_path / "memory-3", mapped=False).clusters
    expected = geometry.with_means(geometry.example_gram(stored[0], 3), clusters)
    assert whole.numpy() == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-3)
    with pytest.raises(InputError, match="memory-2 stands for layer 2"):
        plan(teacher, student, glue, tmp_path / "A", memory=tmp_path / "memory-2")
    teacher_memory.write_memory(tmp_path / "memory-4", stored[0], 3, 5, "kmeans", quiet)
    with pytest.raises(InputError, match="several memories"):
        plan(teacher, student, glue, tmp_path / "A", memory=tmp_path)


# ---------------------------------------------------------------- what is refused


def refused(*arguments, **more):
    with pytest.raises(InputError) as error:
        plan(*arguments, **more)
    return error.value.problems


def test_every_problem_is_said_at_once(tmp_path, glue, monkeypatch, capsys):
    words = ["--teacher", str(tmp_path / "none/x"), "--student", str(tmp_path), "--task", "rtee", "--data", str(glue)]
    monkeypatch.setattr(sys, "argv", ["fsd-tune", "analyze", *words, "--quiet"])
    with pytest.raises(SystemExit) as end:
        main.main()
    err = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" not in err
    for part in ("--output: is missing", "Did you mean `rte`", "--teacher: ", "--student: "):
        assert part in err, part
    assert list(tmp_path.iterdir()) == []


def test_models_that_read_other_tokens(teacher, glue, tmp_path):
    folder = tmp_path / "student"
    torch.manual_seed(0)
    BertForSequenceClassification(tiny.config(2)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(reversed(tiny.words())))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    (problem,) = refused(teacher, folder, glue, tmp_path / "A")
    assert "reads other tokens than the teacher in 20 of 20 examples" in problem


def test_labels_of_another_task(teacher, student, glue, tmp_path):
    problems = refused(teacher, student, glue, tmp_path / "A", task="mnli")
    assert len(problems) == 2 and all("has 2 labels" in problem and "mnli has 3" in problem for problem in problems)


def test_folders_that_hold_other_things(teacher, student, glue, searched, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds other files" in refused(teacher, student, glue, tmp_path)[0]
    there = searched[0] / "analysis"
    assert "analysis of another student" in refused(teacher, teacher, glue, there)[0]
    assert plan(teacher, teacher, glue, there, overwrite=True).output == there
    assert "no folder" in refused(teacher, student, glue, tmp_path / "A", memory=tmp_path / "none")[0]
