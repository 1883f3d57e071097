import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from fsd_tune.data import splits
from fsd_tune.errors import FsdTuneError
from fsd_tune.evaluation.scoring import evaluate
from fsd_tune.memory import teacher_outputs
from fsd_tune.memory.build import NotBuiltError, build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.training.inputs import load_inputs
from tests.helpers import tiny


def quiet(what, done, total):
    pass


@pytest.fixture
def spec(load_settings, glue, teacher, tmp_path):
    def make(folder=tmp_path / "memory", task="sst2", used=teacher, **overrides):
        settings = load_settings(**overrides)
        inputs = load_inputs(settings, task, str(used), glue)
        return MemorySpec.from_inputs(settings, inputs, folder, "cpu")

    return make


def test_one_pass_serves_every_method_batch_size_seed_and_number_of_centroids(spec, tmp_path):
    first = build_artifacts(spec(method="kd"), quiet)
    assert first.passes == 1 and first.memory is None
    others = [
        spec(method="fsd_ilg"),
        spec(method="fsd_g", **{"memory.centroids": 7}),
        spec(method="fsd_il", **{"batch_size": 4, "seed": 9}),
        spec(method="fsd_ilg", **{"student.layers": 3}),
        spec(method="fsd_ilg", **{"student.start": "teacher"}),
    ]
    prepared = [build_artifacts(other, quiet) for other in others]
    assert [done.passes for done in prepared] == [0] * len(others)
    assert {done.outputs for done in prepared} == {first.outputs}
    assert len((tmp_path / "memory" / "passes.jsonl").read_text().splitlines()) == 1
    assert len({done.memory for done in prepared if done.memory}) == 2, "5 and 7 centroids"
    assert len({start for done in prepared for start in done.starts.values()}) == 4


def test_the_shapes_of_a_search_share_one_pass_and_one_memory(spec, tmp_path):
    shapes = {
        "student.layers": "{choice: [3, 2, 4]}",
        "student.start": "{choice: [copy, random]}",
        "student.hidden_size": "{choice: [null, 8]}",
    }
    for layers in ("penultimate", "all"):
        chosen = {"method": "{choice: [fsd_l, fsd_ilg]}", "loss.layers": layers}
        wanted = spec(**chosen, **shapes)
        prepared = build_artifacts(wanted, quiet)
        assert prepared.passes == 1 and list(prepared.starts) == list(wanted.students)
        # The teacher has four layers: 2 of 2 is paired with its last layer but one, and `all` pairs 1 of 3 with 1.
        assert wanted.layers == ((3,) if layers == "penultimate" else (1, 2, 3)), wanted.layers
        assert build_artifacts(wanted, quiet, build=False).starts == prepared.starts
        if layers == "penultimate":
            # Alone a shape has the same artefacts under the same names.
            for student, start in prepared.starts.items():
                own = {f"student.{name}": getattr(student, name) for name in ("layers", "start")}
                own["student.hidden_size"] = student.hidden_size or "null"
                alone = build_artifacts(spec(**chosen, **own), quiet, build=False)
                assert (alone.memory, alone.starts) == (prepared.memory, {student: start})
    assert len(prepared.starts) == 9 and len(set(prepared.starts.values())) == 9
    assert len(list((tmp_path / "memory").glob("memory-*"))) == 2


def test_what_changes_the_outputs_costs_a_pass(spec):
    assert build_artifacts(spec(), quiet).passes == 1
    for change in (
        {"data.max_length": 8},
        {"data.train_limit": 20},
        {"loss.layers": "last"},
        {"data.padding": "published"},
    ):
        assert build_artifacts(spec(**change), quiet).passes == 1, change


def test_the_teachers_score_is_that_of_its_own_predictions(spec, glue, teacher):

    found = evaluate(str(teacher), "sst2", data=glue, device="cpu", precision="float32")["splits"]["dev"]
    assert build_artifacts(spec(), quiet).teacher_metrics == pytest.approx(found)


@pytest.mark.parametrize("padding", ["masked", "published"])
def test_the_formula_gives_the_bytes_of_the_files(spec, padding):
    wanted = spec(method="fsd_ilg", **{"data.padding": padding, "loss.layers": "all"})
    prepared = build_artifacts(wanted, quiet)
    assert prepared.outputs is not None and prepared.memory is not None
    files = [path for folder in (prepared.outputs, prepared.memory) for path in folder.glob("*.npy")]
    arrays = {path.name: np.load(path) for path in files}
    for few in ("sizes.npy", "shard_starts.npy"):  # numbers of clusters and files: the formula leaves them out
        del arrays[few]
    assert wanted.nbytes == sum(array.nbytes for array in arrays.values()), list(arrays)


def test_a_look_builds_nothing(spec, tmp_path):
    wanted = spec(method="fsd_ilg")
    with pytest.raises(NotBuiltError, match="dev-"):
        build_artifacts(wanted, quiet, build=False)
    first = build_artifacts(wanted, quiet)
    found = build_artifacts(wanted, quiet, build=False)
    assert (found.outputs, found.memory, found.starts, found.passes) == (first.outputs, first.memory, first.starts, 0)
    for folder in (*first.starts.values(), first.memory, first.outputs):
        assert folder is not None
        shutil.rmtree(folder)
        with pytest.raises(NotBuiltError, match=folder.name):
            build_artifacts(wanted, quiet, build=False)
        assert not folder.exists()


@pytest.mark.parametrize("damaged", ["outputs", "memory", "start"])
def test_a_truncated_artefact_is_rebuilt_and_the_others_stay(spec, damaged):
    def built():
        found = build_artifacts(spec(), quiet)
        folders = {"outputs": found.outputs, "memory": found.memory, "start": next(iter(found.starts.values()))}
        return found, folders[damaged]

    _, folder = built()
    largest = max(folder.glob("*.npy"), key=lambda path: path.stat().st_size)
    before = np.load(largest).copy()
    with largest.open("r+b") as stream:
        stream.truncate(largest.stat().st_size // 2)
    again, rebuilt = built()
    assert again.passes == (damaged == "outputs")
    assert rebuilt == folder
    np.testing.assert_array_equal(np.load(largest), before)


def test_a_teacher_in_another_label_order_is_mapped(spec, base, tmp_path):
    words = {0: "contradiction", 1: "entailment", 2: "neutral"}
    used = tiny.write_teacher(tmp_path / "t", base, num_labels=3, id2label=words)
    prepared = build_artifacts(spec(task="mnli", used=used, folder=tmp_path / "a"), quiet)
    config = json.loads((used / "config.json").read_text())
    config["id2label"] = {str(index): word for index, word in enumerate(splits.get_task("mnli").labels)}
    config["label2id"] = {word: index for index, word in enumerate(splits.get_task("mnli").labels)}
    (used / "config.json").write_text(json.dumps(config))
    plain = build_artifacts(spec(task="mnli", used=used, folder=tmp_path / "b"), quiet)
    mapped, unmapped = (np.load(str(done.outputs) + "/logits.npy") for done in (prepared, plain))
    np.testing.assert_allclose(mapped, unmapped[:, [1, 2, 0]], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [0.009, 0.025, 0.04, 0.055])
def test_a_full_disk_is_said_and_leaves_nothing_half_written(spec, tmp_path, megabytes):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = f"size={int(megabytes * 1e6)}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(FsdTuneError, match="no space left"):
            build_artifacts(spec(folder=disk), quiet)
        left = [path.name for path in disk.iterdir() if not path.name.endswith((".lock", ".jsonl"))]
        assert all(name.startswith(("dev-", "outputs-", "memory-")) for name in left), left
    finally:
        subprocess.run(["umount", disk], check=True)
    assert build_artifacts(spec(folder=tmp_path / "larger"), quiet).passes == 1


def test_outputs_beyond_their_limit_are_not_stored(load_settings, glue, teacher, tmp_path):
    def made(**overrides):
        settings = load_settings(**overrides | {"memory.spool_limit_gb": 1e-6})
        inputs = load_inputs(settings, "sst2", str(teacher), glue)
        return MemorySpec.from_inputs(settings, inputs, tmp_path / "memory", "cpu")

    spec = made(method="fsd_ilg", **{"memory.centroids": 7})
    assert spec.live and len(spec.stored) == 7 and spec.stored.lengths.max() == spec.train.lengths.max()
    assert "over memory.spool_limit_gb (1e-06)" in spec.notes[0] and "teacher runs live" in spec.notes[0]
    prepared = build_artifacts(spec, quiet)
    assert prepared.passes == prepared.passes_ever == 0 and prepared.memory is not None
    spec = made(method="fsd_il")
    prepared = build_artifacts(spec, quiet)
    assert spec.live and prepared.outputs is None and prepared.passes == 0 and spec.nbytes == 0
    spec = made(method="kd")
    assert not spec.live and spec.layers == () and "only its logits are stored" in spec.notes[0]
    prepared = build_artifacts(spec, quiet)
    assert (
        prepared.passes == 1
        and prepared.outputs is not None
        and len(teacher_outputs.read_outputs(prepared.outputs, mapped=True)) == len(spec.train)
    )
    spec = made(method="ce")
    assert not spec.live and spec.notes == ()


def test_a_disk_without_room_for_the_outputs_is_found_before_the_pass(spec, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=10**6, used=0, free=1000))
    assert spec().live
    monkeypatch.undo()
    build_artifacts(spec(), quiet)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=10**6, used=0, free=1000))
    assert not spec().live, "what is there already needs no room"
