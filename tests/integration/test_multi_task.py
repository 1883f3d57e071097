"""Several tasks in one command: real searches with tiny models."""

import dataclasses
import io
import json
import shutil
import subprocess

import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

from fsd_tune.cli.values import tasks_and_teachers
from fsd_tune.errors import FsdTuneError, InputError
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
def test_tasks_in_turn_and_one_that_fails(ray_session, tmp_path, glue, teachers):
    """The table has every task; one that fails, here by a teacher with weights that are no numbers, stops no other."""
    names = ["sst2", "rte", "stsb"]
    broken = tmp_path / "broken"
    shutil.copytree(teachers / "rte", broken)
    weights = load_file(broken / "model.safetensors")
    weights["classifier.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    outcomes = multi_task.run_searches(
        space(tmp_path, "--trials=2"),
        searches(names, [teachers / "sst2", broken, teachers / "stsb"], tmp_path / "R", glue),
    )
    assert [outcome.results is None for outcome in outcomes] == [False, True, False]
    for name in ("sst2", "stsb"):
        results = load(tmp_path / "R" / name)
        agree(results)
        assert results.summary.memory.passes == 1 and results.summary.task == name
    found = multi_task.tasks_document(outcomes)["tasks"]
    assert list(found) == names and "not finite" in found["rte"]["failed"]
    assert found["stsb"]["metric"] == "pearson_spearman" or found["stsb"]["best"]["score"] <= 1
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(multi_task.table(outcomes))
    rows = [
        line.split() for line in console.export_text().splitlines() if line.split()[:1] and line.split()[0] in names
    ]
    assert [row[0] for row in rows] == names and rows[1][1] == "failed"
    assert rows[0][2] == f"{found['sst2']['best']['score']:.4f}" and rows[0][-1] == str(tmp_path / "R" / "sst2")
    said = "".join(load(tmp_path / "R" / "stsb").summary.notes or [])
    assert "good in sst2 (" in said and "rte" not in said, "a task that failed is no start for others"
    with pytest.raises(FsdTuneError, match="1 of 3 tasks"):
        multi_task.check(outcomes)


@pytest.mark.slow
def test_the_command(tmp_path, glue, teachers):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    with short_folder() as temporary:
        words = [
            SCRIPT, "search", path, "--task", "sst2,mnli,stsb", "--teacher", teachers / "{task}", "--data", glue,
            "--output", tmp_path / "R", "--temp-dir", temporary, "--trials=2",
        ]  # fmt: skip
        first = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
        again = subprocess.run([*map(str, words), "--json"], capture_output=True, text=True, check=True)
    rows = {line.split()[0]: line.split() for line in first.stdout.splitlines() if line.strip()}
    found = json.loads(again.stdout)["tasks"]
    assert list(found) == ["sst2", "mnli", "stsb"]
    for name, document in found.items():
        assert rows[name][2] == f"{document['best']['score']:.4f}" and document["teacher_passes"] == 1
    assert again.stderr.count("0 to run now") == 3, "the same command again runs nothing again"
