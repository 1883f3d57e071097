"""The end of a search in lines and in JSON, read back from folders as searches leave them."""

import json
import random

import pytest

from fsd_tune.report import summary
from fsd_tune.report.results import load
from tests.helpers import result_folders


@pytest.fixture
def search(tmp_path):
    """`search(**changes)` gives the results of a folder whose summary.json has the changes."""

    def write(trials=24, **changes):
        return load(result_folders.write_search(tmp_path / "R", trials=trials, study=False, **changes))

    return write


def value(lines, name):
    """What the line that begins with `name` says."""
    found = [line.strip().removeprefix(name).strip() for line in lines if line.strip().startswith(name)]
    assert len(found) == 1, (name, lines)
    return found[0]


def test_the_end_of_a_search(search):
    results = search()
    lines, best, saved = summary.summary_lines(results), results.best, results.saved
    assert best is not None
    assert lines[0] == "sst2-fsd_ilg: done after 6 min 53 s"
    said = value(lines, "best student  ")
    assert said.startswith(f"accuracy {best['score']:.4f} (standard error 0.0") and f"trial {best['number']}" in said
    assert f"gamma_i={best['gamma_i']:.3g}" in value(lines, "method=fsd_ilg")
    assert value(lines, "teacher  ") == f"accuracy 0.8320; the student keeps {best['score'] / 0.832:.1%}"
    assert f"the last is {best['last']:.4f}" in value(lines, "a score is the mean")
    trials = value(lines, "trials  ")
    counts = ", ".join(f"{int(saved[state])} {state}" for state in ("finished", "stopped", "failed"))
    assert trials == (
        f"24 of 24: {counts}; stopping early saved {saved['share']:.0%} of the steps "
        f"({int(saved['steps_saved'])} of {int(saved['steps_if_all_ran'])})"
    )
    assert saved["stopped"] > 0 and 0 < saved["share"] < 1
    assert value(lines, "teacher passes") == "1 over the training split, for 24 trials"
    assert "in evaluations" in value(lines, "trials' time")
    assert not any("nan" in line.lower() or "None" in line for line in lines)


def test_places_are_named_when_they_are_there(search, tmp_path):
    results = search(trials=4)
    assert not any("report.html" in line for line in summary.summary_lines(results))
    (tmp_path / "R/report.html").write_text("")
    (tmp_path / "R/study.db").write_text("")
    (tmp_path / "R/best").mkdir()
    lines = summary.summary_lines(results)[-3:]
    assert [line.split()[-1] for line in lines] == [
        str(tmp_path / "R" / name) for name in ("report.html", "study.db", "best")
    ]


def test_behind_a_uri_the_places_are_copies(search):
    *_, where, elsewhere = summary.summary_lines(search(trials=4), "s3://bucket/runs/rte?region=eu")
    assert where.endswith(" s3://bucket/runs/rte?region=eu")
    assert elsewhere.endswith(" fsd-tune fetch 's3://bucket/runs/rte?region=eu'")


def test_a_reused_memory_and_another_judge_are_said(search):
    memory = result_folders.summary()["memory"] | {"passes": 0, "passes_ever": 1}
    lines = summary.summary_lines(search(trials=4, memory=memory, judge_by="last"))
    assert value(lines, "teacher passes").startswith("0 over the training split, for 4 trials (reused; 1 was paid")
    assert not any("a score is the mean" in line for line in lines)


@pytest.mark.parametrize("score", [None, 0.0, -0.1])
def test_a_teacher_that_cannot_be_compared(search, score):
    """A search of `ce` alone has no teacher's score; Matthews and Pearson may be zero or negative."""
    lines = summary.summary_lines(search(trials=4, teacher={"name": "t", "score": score}))
    assert any("teacher  " in line for line in lines) == (score is not None)
    assert not any("keeps" in line or "inf" in line for line in lines)


def test_a_search_without_an_end(tmp_path):
    """A folder as it is while the first trials run: nothing finished, nothing reported."""
    folder = tmp_path / "R"
    result_folders.write_frame(folder, {"state": "running", "wall_seconds": 3.0})
    results = load(folder)
    lines = summary.summary_lines(results)
    assert value(lines, "best student") == "none: no trial has finished"
    assert value(lines, "trials  ").startswith("0 of 24: none ended; stopping early saved 0% of the steps (0 of 0)")
    result_folders.write_trial(folder, 0, result_folders.configuration(random.Random(0)), [], None)
    lines = summary.summary_lines(load(folder))
    assert value(lines, "trials  ").startswith("1 of 24: none ended")
    assert summary.summary_document(load(folder))["best"] is None


def test_a_young_search(tmp_path):
    """Only what search writes first: no trial, no figures."""
    folder = tmp_path / "R"
    folder.mkdir()
    (folder / "summary.json").write_text('{"identity": "x", "state": "running"}')
    (folder / "settings.yaml").write_text("method: kd\n")
    lines = summary.summary_lines(load(folder))
    assert value(lines, "best student") == "none: no trial has finished"
    assert "None" not in "\n".join(lines)
    json.dumps(summary.summary_document(load(folder)), allow_nan=False)


def test_the_same_for_machines(search, tmp_path):
    results = search()
    document = json.loads(json.dumps(summary.summary_document(results), allow_nan=False))
    best = results.best
    assert best is not None
    assert document["best"]["trial"] == best["number"] and document["best"]["score"] == best["score"]
    params = json.loads((tmp_path / "R/results" / best["folder"] / "config.json").read_text())
    assert document["best"]["config"] == params["config"]
    assert document["output"] == str(tmp_path / "R") and document["task"] == "sst2" and document["state"] == "done"
    assert document["teacher"]["score"] == 0.832 and document["teacher_passes"] == 1
    assert document["trials"]["finished"] == results.saved["finished"] and document["wall_seconds"] == 412.7


def test_hyperparameters_that_the_best_does_not_use_are_left_out(tmp_path):
    """In a search over methods a trial has no value for what only others use."""
    folder, generator = tmp_path / "R", random.Random(3)
    result_folders.write_frame(folder, {"trials": 2})
    reports = [result_folders.report(index, 0.7) for index in range(1, 11)]
    result_folders.write_trial(folder, 0, {"method": "kd", "alpha": 0.5, "temperature": 3.0, "epochs": 2}, reports)
    worse = [result_folders.report(index, 0.6) for index in range(1, 11)]
    result_folders.write_trial(folder, 1, result_folders.configuration(generator), worse)
    results = load(folder)
    assert value(summary.summary_lines(results), "method=kd") == "alpha=0.5 temperature=3 epochs=2"
    config = summary.summary_document(results)["best"]["config"]
    assert config == {"method": "kd", "alpha": 0.5, "temperature": 3.0, "epochs": 2}
    json.dumps(config)


def leading(tmp_path, state):
    """A finished trial at 0.6, and one that is ahead of it after 3 of 10 reports."""
    folder = tmp_path / "L"
    result_folders.write_frame(folder)
    rng = random.Random(3)
    for number, values, ending in (
        (0, [0.5, 0.9] + [0.6] * 8, "finished"),
        (1, [0.5, 0.5, 0.7], state),
        (2, [0.8], "failed"),
    ):
        rows = [result_folders.report(index, score) for index, score in enumerate(values, start=1)]
        result_folders.write_trial(folder, number, result_folders.configuration(rng), rows, ending)
    return load(folder)


@pytest.mark.parametrize(
    ("state", "how"),
    [
        ("stopped", "ASHA stopped it; train it whole: fsd-tune distill "),
        (None, "continue it: fsd-tune resume "),
    ],
)
def test_the_best_of_all_trials_is_named_although_it_has_not_finished(tmp_path, state, how):
    results = leading(tmp_path, state)
    assert results.best is not None and results.best["number"] == 0
    lines = summary.summary_lines(results)
    said = value(lines, "so far  ")
    assert said.startswith("accuracy 0.7000 after 3 of 10 reports, trial 1, ")
    assert [line for line in lines if line.strip().startswith(how)]
    document = summary.summary_document(results)
    assert document["best"]["trial"] == 0
    found = document["recommended"]
    assert (found["trial"], found["reports"], found["last"]) == (1, 3, 0.7) and found["config"]["method"] == "fsd_ilg"
    json.dumps(document)


def test_a_finished_leader_is_the_best_student_alone(tmp_path):
    results = leading(tmp_path, "failed")
    assert not any("so far" in line for line in summary.summary_lines(results))
    assert summary.summary_document(results)["recommended"]["trial"] == 0


def test_what_a_search_cost(search, tmp_path):
    results = search()
    assert not any(line.startswith("  cost") for line in summary.summary_lines(results))
    results.settings["search"]["price_per_hour"] = 2.5
    seconds, curve = results.summary.wall_seconds, results.best_so_far()
    half = curve[curve["steps"] <= curve["steps"].max() / 2]["best"].max()
    gained, cost = 100 * (curve["best"].max() - half), 2.5 * seconds / 3600
    said = value(summary.summary_lines(results), "cost")
    assert said.startswith(f"{cost:.2f} at 2.5 an hour; the second half of its steps gained ")
    assert said.endswith("nothing" if gained == 0 else f"{gained:.1f} points, at {cost / 2 / gained:.2f} each")
