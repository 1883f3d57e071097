"""Several tasks in one command: real searches with tiny models."""

import dataclasses
import json
import os
import shutil
import subprocess

import pytest
from safetensors.torch import load_file, save_file

from fsd_tune.cli.values import tasks_and_teachers
from fsd_tune.errors import InputError
from fsd_tune.report.results import load
from fsd_tune.search import multi_task
from fsd_tune.search.api import execute
from fsd_tune.search.options import RunOptions, SearchInputs
from fsd_tune.search.plan import plan_search
from fsd_tune.settings import loader
from tests.helpers import result_folders, tiny
from tests.helpers.searching import SCRIPT, SPACE, agree, short_folder

LABELS = {"sst2": 2, "rte": 2, "stsb": 1, "mnli": 3}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("teachers")
    for task, labels in LABELS.items():
        more = {"problem_type": "regression"} if labels == 1 else {}
        tiny.write_teacher(folder / task, base, num_labels=labels, **more)
    return folder


def test_ids_and_teachers():
    assert tasks_and_teachers("rte", "t") == (["rte"], ["t"])
    assert tasks_and_teachers("rte, mrpc", "t/{task}/x") == (["rte", "mrpc"], ["t/rte/x", "t/mrpc/x"])
    for given, teacher, expected in (
        ("rte,rte", "{task}", ["--task: found rte more than once."]),
        ("rte,,cola", "{task}", ["--task: found rte,,cola, but must be ids with single commas between them."]),
        ("rte,cola", "t", ["--teacher: found t, but several tasks need a place for their ids: 'teachers/{task}'."]),
    ):
        with pytest.raises(InputError) as caught:
            tasks_and_teachers(given, teacher)
        assert list(caught.value.problems) == expected


def space(tmp_path, *flags):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return loader.load(path, loader.parse_flags(flags))


def searches(names, teachers, output, data):
    return [
        SearchInputs(name, str(teacher), output / name, data) for name, teacher in zip(names, teachers, strict=True)
    ]


def test_the_problems_of_all_tasks_come_before_any_work(tmp_path, glue, teachers):
    names = ["sst2", "cola", "mnli"]
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError) as caught:
        multi_task.run_searches(
            space(tmp_path, "--student-layers=9"),
            searches(names, [teachers / "sst2", teachers / "absent", teachers / "rte"], tmp_path / "R", glue),
        )
    said = "\n".join(caught.value.problems)
    assert said.count("student.layers") == 1, "what is wrong for every task is said once"
    assert "absent" in said and "has 2 labels" in said and not (tmp_path / "R").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_lies_in_the_folder_when_its_turn_comes(tmp_path, glue, teachers, overwrite):
    """Another search that was written there since the command began is neither taken up nor deleted."""
    options = RunOptions(overwrite=overwrite)
    (inputs,) = searches(["sst2"], [teachers / "sst2"], tmp_path / "R", glue)
    plan = plan_search(space(tmp_path), inputs, options)
    folder = tmp_path / "R" / "sst2"
    folder.mkdir(parents=True)
    theirs = json.dumps({"group": "theirs", "identity": plan.identity | {"teacher": "another"}})
    (folder / "summary.json").write_text(theirs)
    with pytest.raises(InputError, match="holds another search"):
        execute(plan, options)
    assert (folder / "summary.json").read_text() == theirs


def test_a_task_is_warmed_by_those_before_it(tmp_path, glue, teachers):
    earlier = result_folders.write_search(tmp_path / "R" / "rte", trials=12, study=False, name="rte")
    (inputs,) = searches(["sst2"], [teachers / "sst2"], tmp_path / "R", glue)
    settings = space(tmp_path, "--learning-rate={low: 1e-5, high: 1e-2, log: true}", "--batch-size={choice: [16, 32]}")
    plan = plan_search(settings, inputs, RunOptions())
    warmed = plan.warmed_by([str(earlier)])
    assert {trial.config["method"] for trial in warmed.warm_start.trials} == {"fsd_ilg"}
    assert "good in rte (" in "".join(warmed.notes) and plan.warm_start.trials == []
    assert plan.offer.endswith(f"--warm-from {earlier}") and warmed.offer == ""
    unusable = plan.warmed_by([str(tmp_path / "none")])
    assert "no such folder" in unusable.notes[-1] and unusable.warm_start.trials == []
    for other in (
        plan_search(settings.model_copy(update={"search": settings.search.model_copy(update={"warm_from": "off"})}),
                    inputs, RunOptions()),
        dataclasses.replace(plan, is_new=False),
    ):  # fmt: skip
        assert other.warmed_by([str(earlier)]) == other


@pytest.mark.slow
def test_tasks_in_turn_and_one_that_fails(tmp_path, glue, teachers):
    """The table has every task; one that fails, here by a teacher with weights that are no numbers, stops no other."""
    names = ["sst2", "rte", "stsb"]
    shutil.copytree(teachers, tmp_path / "teachers")
    damaged = tmp_path / "teachers" / "rte" / "model.safetensors"
    weights = load_file(damaged)
    weights["classifier.weight"].fill_(float("nan"))
    save_file(weights, damaged, metadata={"format": "pt"})
    path = tmp_path / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    with short_folder() as temporary:
        words = [
            SCRIPT, "search", path, "--task", ",".join(names), "--teacher", tmp_path / "teachers" / "{task}",
            "--data", glue, "--output", tmp_path / "R", "--temp-dir", temporary, "--trials=2",
        ]  # fmt: skip
        wide = os.environ | {"COLUMNS": "300"}
        first = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, env=wide)
        again = subprocess.run([*map(str, words), "--json"], capture_output=True, text=True, check=False)
    for done in (first, again):
        assert done.returncode == 1 and "1 of 3 tasks" in done.stderr, done.stderr
    rows = {line.split()[0]: line.split() for line in first.stdout.splitlines() if line.strip()}
    assert [name for name in rows if name in names] == names and rows["rte"][1] == "failed"
    found = json.loads(again.stdout)["tasks"]
    assert list(found) == names and "not finite" in found["rte"]["failed"]
    assert found["stsb"]["metric"] == "pearson_spearman" or found["stsb"]["best"]["score"] <= 1
    for name in ("sst2", "stsb"):
        results = load(tmp_path / "R" / name)
        agree(results)
        assert results.summary.memory.passes == found[name]["teacher_passes"] == 1 and results.summary.task == name
        assert rows[name][2] == f"{found[name]['best']['score']:.4f}"
        assert rows[name][-1] == str(tmp_path / "R" / name)
    said = "".join(load(tmp_path / "R" / "stsb").summary.notes or [])
    assert "good in sst2 (" in said and "rte" not in said, "a task that failed is no start for others"
    assert again.stderr.count("0 to run now") == 2, "the same command again runs nothing again"
