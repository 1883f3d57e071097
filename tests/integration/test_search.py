"""Searches end to end on a real local Ray, with tiny models; one Ray instance for the module."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fsd_tune.errors import InputError
from fsd_tune.evaluation.confirm.api import confirm
from fsd_tune.evaluation.scoring import evaluate
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.report.html_report import distill_command
from fsd_tune.report.results import load
from fsd_tune.report.summary import summary_lines
from fsd_tune.search import api as search
from fsd_tune.search.ending import Ending
from fsd_tune.settings import loader
from fsd_tune.settings.configuration import resolve
from fsd_tune.storage import artifacts
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import load_inputs
from tests.helpers.searching import SPACE, agree, study_of

# A worker takes seconds to start, so a search that does not need two of them has one.
ONE_WORKER = "--resources-max-concurrent=1"


@pytest.fixture
def space(settings_from_yaml):
    return lambda text=SPACE, *flags: settings_from_yaml(text, *flags)


@pytest.fixture(scope="module")
def finished(ray_session, glue, teacher, tmp_path_factory):
    """The results of a finished search; its folder must not be written to."""
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "space.yaml"
    file.write_text(SPACE)
    settings = loader.load(file)
    return search.run(settings, task="sst2", teacher=str(teacher), data=glue, output=folder / "R")


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished search's folder, for a test that goes on with it."""
    return shutil.copytree(finished.folder, tmp_path / "R")


@pytest.fixture
def run(ray_session, glue, teacher, tmp_path):
    def start(settings, folder="R", **more):
        arguments = {"task": "sst2", "teacher": str(teacher), "data": glue, "output": tmp_path / folder} | more
        return search.run(settings, **arguments)

    return start


@pytest.mark.slow
def test_a_search_as_published_and_over_the_other_methods(run, space, tmp_path):
    """Padding, memory, distances and starts of the published code; all methods train from one teacher pass."""
    text = SPACE.replace("[fsd_ilg, kd, ce]", "[fsd_ilg, fsd_g, pkd, rkd_distance, rkd_angle]").replace(
        "data: {max_length: 32}", "data: {max_length: 32, padding: published}\nloss: {layers: all}"
    )
    text = text.replace("{centroids: 5}", "{centroids: 20, algorithm: published}")
    first = [{"method": name} for name in ("fsd_g", "pkd", "rkd_distance", "rkd_angle")]
    results = run(space(text.replace("{trials: 6}", f"{{trials: 5, first: {json.dumps(first)}}}")))
    assert set(results.trials["method"]) == {"fsd_ilg", "fsd_g", "pkd", "rkd_distance", "rkd_angle"}
    assert set(results.trials["state"]) <= {"finished", "stopped"} and results.summary.memory.passes == 1
    agree(results)
    sizes = results.summary.memory.sizes
    assert len(sizes) == 20 and sum(sizes) == 40 and 0 in sizes
    terms = {"fsd_g": "global", "pkd": "cls", "rkd_distance": "distance", "rkd_angle": "angle"}
    for _, row in results.trials.iterrows():
        reports = results.reports[results.reports["trial"] == row["number"]]
        assert reports[f"loss/{terms.get(row['method'], 'intra')}"].notna().all()
    # All positions of all examples, in the layers of the pair (2, 1) and of the memory.
    (outputs,) = (tmp_path / "R" / "memory").glob("outputs-*")
    facts = artifacts.facts_of(outputs)
    assert facts is not None and (facts["tokens"], facts["layers"], facts["padding"]) == (40 * 32, [2, 3], "published")


def test_the_main_job(finished):
    results = finished
    assert len(results.trials) == 6 and set(results.trials["state"]) <= {"finished", "stopped"}
    assert results.summary.state == "done"
    begun = results.trials[results.trials["number"] < 3]
    assert set(begun["method"]) == {"fsd_ilg", "kd", "ce"} and set(begun["learning_rate"]) == {1e-4}, "the defaults"
    # Each method's rungs are its own, so the first trial at each of them continues.
    assert set(results.trials[results.trials["state"] == "finished"]["method"]) == set(begun["method"])
    assert results.summary.memory.passes == 1 and results.summary.teacher.score >= 0
    assert len((results.folder / "memory" / "passes.jsonl").read_text().splitlines()) == 1
    agree(results)
    names = {path.name for path in results.folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "settings.yaml", "command.txt", "versions.json", "summary.json", "results", "study.db", "leaderboard.csv",
        "report.html", "best", "memory",
    }  # fmt: skip
    best = results.folder / "best"
    model = AutoModelForSequenceClassification.from_pretrained(best)
    assert model.config.num_hidden_layers == 2 and model.config.id2label == {0: "negative", 1: "positive"}
    assert AutoTokenizer.from_pretrained(best)("a film")["input_ids"]
    record = json.loads((best / "fsd_tune.json").read_text())
    assert record["score"] == results.best["score"] and record["config"]["method"] == results.best["method"]


def test_the_student_scores_what_the_search_said(finished, glue):
    scores = evaluate(str(finished.folder / "best"), "sst2", data=glue, device="cpu", precision="float32")
    assert scores["splits"]["dev"]["accuracy"] == finished.best["score"]


def test_the_end_has_student_and_teacher_side_by_side(finished):
    models = finished.summary.models.models
    assert models is not None and models["student"]["parameters"] < models["teacher"]["parameters"]
    assert models["student"]["size_mb"] == (finished.folder / "best" / "model.safetensors").stat().st_size / 1e6
    assert 0 < models["student"]["flops"] < models["teacher"]["flops"]


def test_a_trial_equals_a_single_run(finished, glue):
    """Reused workers give the numbers of a fresh process: no state leaks from trial to trial."""
    settings = loader.load(finished.folder / "settings.yaml")
    inputs = load_inputs(settings, "sst2", finished.summary.inputs["teacher"], glue)
    spec = MemorySpec.from_inputs(settings, inputs, finished.folder / "memory", "cpu")
    prepared = build_artifacts(spec, lambda *_: None)
    assert prepared.passes == 0
    factory = DistillerFactory(settings, spec, open_arrays(prepared, mapped=True))
    for number in (0, 3, 5):
        row = finished.trials[finished.trials["number"] == number].iloc[0]
        config = json.loads((finished.folder / "results" / row["folder"] / "config.json").read_text())["config"]
        distiller = factory.distiller(config, finished.summary.planned_reports)
        reports = finished.reports[finished.reports["trial"] == number].sort_values("report")
        assert len(reports) > 0
        for _, expected in reports.iterrows():
            record = distiller.train_to_next_evaluation()
            assert record["accuracy"] == expected["accuracy"]
            assert record["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.slow
def test_deterministic_with_one_worker(run, space, tmp_path):
    settings = space(SPACE, "--trials=4", ONE_WORKER)
    first, second = run(settings, "A"), run(settings, "B", memory=tmp_path / "A" / "memory")
    columns = ["number", "state", "score", *first.hyperparameters]
    assert first.trials[columns].equals(second.trials[columns])


def test_again_continues_and_pays_nothing(run, space, finished, copy):
    settings = ("--trials=7",)
    with pytest.raises(
        InputError, match=r"holds another search.*space\.batch_size 8 there, 4 now; search\.seed 0 there"
    ):
        run(space(SPACE, *settings, "--seed=3", "--batch-size=4"))
    more = run(space(SPACE, *settings))
    assert len(more.trials) == 7
    kept = more.trials.set_index("number").loc[sorted(finished.trials["number"])]
    assert kept["folder"].tolist() == finished.trials.set_index("number").sort_index()["folder"].tolist()
    assert more.summary.memory.passes == 1, "the pass that this search paid before stays its only one"
    agree(more)


def test_a_search_starts_from_an_earlier_one_which_may_go_away(run, space, copy, tmp_path):
    """Of the two trials of kd in the earlier search one had the defaults, which come first in any case."""
    kd = load(copy).trials.set_index("number").query("method == 'kd' and number >= 3")
    run(space(SPACE, "--method=kd", ONE_WORKER, "--seed=1", "--trials=1", f"--warm-from={copy}"), "W")
    shutil.rmtree(copy)
    results = search.resume(tmp_path / "W", {"search.trials": 2})
    trials = results.trials.set_index("number")
    assert trials["origin"].sort_index().tolist() == ["", f"R trial {kd.index[0]}"]
    for name in ("learning_rate", "alpha", "temperature"):
        assert trials.loc[1, name] == kd.iloc[0][name]
    assert "1 of 2 trials has its configuration from earlier searches: 1 from R." in "".join(summary_lines(results))
    assert f'<td data-value="R trial {kd.index[0]}">' in (results.folder / "report.html").read_text()


def test_a_search_of_one_fixed_configuration_replaces_another_and_is_confirmed(run, space, copy, confirm_here):
    """Of ce alone: its kd baseline needs a teacher memory that the search had no use for, one pass, which is said."""
    text = """
method: ce
space: {epochs: 1, batch_size: 8}
student: {layers: 2}
data: {max_length: 32}
search: {trials: 1, seed: 3}
asha: {reports: 2}
"""
    settings = space(text)
    results = run(settings, overwrite=True)
    assert len(results.trials) == 1 and results.settings["search"]["seed"] == 3
    assert not results.summary.memory
    assert results.best["method"] == "ce" and resolve(settings)["epochs"] == 1
    shutil.rmtree(results.folder / "memory")  # of the search that was there
    made = confirm(results.folder, top=1, seeds=1, fresh_seeds=2)
    assert [one["baseline"] for one in made["differences"]] == ["kd (defaults, untuned)"]
    assert made["teacher_passes"] == 1 and "ce is the winner itself" in made["notes"][0]


def test_diverging_trials_fail_and_the_search_goes_on(run, space):
    text = SPACE.replace("learning_rate: {low: 1e-4, high: 1e-2, log: true}", "learning_rate: {choice: [1e-3, 1]}")
    text = text.replace("search: {trials: 6}", "search: {trials: 4, first: [{method: kd, learning_rate: 1}]}")
    text = text.replace("epochs: 2", "epochs: 4\n  weight_decay: {choice: [0, 10]}")
    results = run(space(text.replace("learning_rate: 1}", "learning_rate: 1, weight_decay: 10}"), ONE_WORKER))
    agree(results)
    for _, row in results.trials.iterrows():
        assert (row["state"] == "failed") == ("diverged" in row["reason"])


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_memory_actor_lose_no_trial(run, space, tmp_path):
    """While trials train: the trial is tried again in a new worker, which must fetch from the restarted actor."""
    import ray

    killed: list[object] = []
    ended = threading.Event()

    def kill_both():
        while not killed and not ended.wait(0.05):
            reported = [path for path in (tmp_path / "R" / "results").glob("*/reports.jsonl") if path.stat().st_size]
            for actor in ray.util.list_named_actors(all_namespaces=True) if reported else []:
                if actor["name"].startswith("memory-"):
                    ray.kill(ray.get_actor(**actor), no_restart=False)
                    pid = json.loads(reported[0].read_text().splitlines()[0])["pid"]
                    os.kill(pid, signal.SIGKILL)
                    killed.extend([actor["name"], pid])

    thread = threading.Thread(target=kill_both)
    thread.start()
    results = run(space(SPACE, "--asha=off", "--trials=4", "--epochs=10"))
    ended.set()
    thread.join()
    assert len(killed) == 2
    assert results.trials["state"].tolist() == ["finished"] * 4
    assert results.summary.memory.passes == 1
    assert ray.util.list_named_actors(all_namespaces=True) == []
    agree(results)


def test_more_than_the_cluster_has_is_said_at_once(run, space, tmp_path):
    with pytest.raises(InputError) as error:
        run(space(SPACE, "--resources-cpus-per-trial=64", "--resources-gpus-per-trial=1"), device="cpu")
    assert not (tmp_path / "R").exists(), "said before any work"
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "resources.cpus_per_trial",
        "resources.gpus_per_trial",
    ]


def test_a_folder_in_use_is_refused(space, glue, teacher, tmp_path):
    from fsd_tune.search.folder import hold_folder

    with hold_folder(tmp_path / "R"), pytest.raises(InputError, match="another search is running in"):
        search.run(space(), task="sst2", teacher=str(teacher), data=glue, output=tmp_path / "R")
    assert not (tmp_path / "R").exists(), "nothing was written"


CE = """
method: ce
space: {epochs: {low: 1, high: 2}, batch_size: {choice: [8, 16]}, learning_rate: 1e-3}
student: {layers: 2}
data: {max_length: 32}
search: {sampler: grid, trials: 9}
asha: off
precision: float32
"""


def test_a_grid_is_run_to_its_end(run, space):
    results = run(space(CE, ONE_WORKER))
    agree(results)
    assert len(results.trials) == 4 == len(results.trials[["epochs", "batch_size"]].drop_duplicates())
    assert results.summary.trials == 9 and results.summary.state == "done"
    assert results.summary.ended_by.text == "the whole grid of 4 points was run; 9 trials were asked for"
    again = run(space(CE, ONE_WORKER))
    assert again.summary.ended_by == results.summary.ended_by and len(again.trials) == 4


def test_stalled_and_continued(run, space):
    """With one learning rate that learns nothing no trial is better than the first."""
    text = CE.replace("learning_rate: 1e-3", "learning_rate: 1e-12").replace("sampler: grid", "sampler: cmaes")
    text = text.replace("batch_size: {choice: [8, 16]}", "batch_size: {low: 8, high: 16}")
    flags = (ONE_WORKER, "--trials=9")
    results = run(space(text, "--stop-after-stalled=2", *flags))
    assert results.summary.ended_by.as_json() == {
        "budget": "stop_after_stalled",
        "not_run": 6,
        "text": "stopped after 2 trials without a better one: 6 of 9 not run",
    }
    assert run(space(text, "--stop-after-stalled=2", *flags)).summary.ended_by == results.summary.ended_by
    more = run(space(text, "--stop-after-stalled=3", *flags))
    assert len(more.trials) == 4 and more.summary.ended_by.not_run == 5
    generations = [
        json.loads(path.read_text()).get("generation") for path in sorted(more.folder.glob("results/*/config.json"))
    ]
    assert generations == [None, 0, 0, 0]


def test_a_time_budget_ends_a_search_and_the_best_trial_is_trained_to_its_end(run, space, tmp_path, monkeypatch):
    """The budget is over as soon as a trial has reported, however fast the machine is."""
    monkeypatch.setattr(Ending, "due", property(lambda ending: ending._budget_end is not None and any(reported())))

    def reported():
        return (tmp_path / "R" / "results").glob("*/reports.jsonl")

    budget = "--time-budget=1h"
    results = run(space(CE, "--sampler=random", "--trials=2000", "--epochs=400", "--asha=off", budget))
    ended_by, states = results.summary.ended_by, list(results.trials["state"])
    assert results.summary.state == "done" and ended_by.budget == "time_budget"
    assert states.count("finished") == 1 and set(states) <= {"finished", "interrupted"}
    assert results.trials.iloc[0]["reports"] == results.summary.planned_reports
    assert results.recommended is not None and (results.folder / "best").is_dir()
    said = f"{ended_by.not_run} of 2000 not run" + ", 1 interrupted" * (len(states) - 1)
    assert ended_by.text == f"stopped after the time budget of 1h: {said}"
    # A trial that was asked for and never began has no folder; none stands as running.
    assert {trial.state.name for trial in study_of(results).trials} <= {"COMPLETE", "FAIL", "WAITING"}


def test_selected_on_a_holdout_dev_is_scored_once(run, space, glue, base, tmp_path):
    """With fewer examples than centroids, too."""
    from fsd_tune.report import summary
    from tests.unit.data.test_holdout import honest_teacher

    honest = honest_teacher(tmp_path / "honest", base, glue, 0.25)
    settings = space(SPACE, "--trials=3", "--select-on={holdout: 0.25}", "--memory-centroids=300", ONE_WORKER)
    results = run(settings, teacher=str(honest))
    # Some of the 30 generated sentences are the same.
    assert 20 < results.summary.memory.centroids <= 30
    assert any("lowered to 30" in note for note in results.summary.notes)
    assert results.summary.train_examples == 30 and results.summary.selection_examples == 10
    assert results.summary.memory.examples == 30
    dev = results.summary.dev
    best = evaluate(str(results.folder / "best"), "sst2", data=glue, device="cpu", precision="float32")
    assert dev.examples == 24 and dev.score == best["splits"]["dev"]["accuracy"]
    printed = "\n".join(summary.summary_lines(results))
    assert "0.25 of the training split, held out of it" in printed and "which selected nothing" in printed
    assert "Best student on dev" in (results.folder / "report.html").read_text()


def test_the_reports_command_trains_the_best_again(finished):
    words = shlex.split(distill_command(finished, finished.best))
    script = Path(sys.executable).parent / words[0]
    done = subprocess.run([script, *words[1:], "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["score"] == pytest.approx(finished.best["score"])
