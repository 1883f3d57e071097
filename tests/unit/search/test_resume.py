"""What is taken up of an interrupted search, on folders made by hand; real kills are in test_resume.py."""

import json
import shutil
from pathlib import Path

import pytest

from fsd_tune.report.compare import differences
from fsd_tune.report.results import load
from fsd_tune.search.folder import identifying_settings
from fsd_tune.search.resume import restore_trials
from fsd_tune.settings import loader
from fsd_tune.storage import checkpoints

SPACE = """
method: kd
space: {alpha: {low: 0, high: 1}, temperature: 5}
search: {trials: 4}
asha: {reports: 4}
"""


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "R"
    (root / "results").mkdir(parents=True)
    (root / "settings.yaml").write_text(SPACE)
    summary = {"metric": "accuracy", "reports": 4, "judge_by": "last", "state": "running", "mode": "max"}
    (root / "summary.json").write_text(json.dumps(summary))
    return root


@pytest.fixture
def settings(folder):
    return loader.load(folder / "settings.yaml")


def write_trial(folder, number, reports, state=None, at=(), done=False):
    """A trial with so many reports, an end if it has one, and whole checkpoints after the reports `at`."""
    trial = folder / "results" / f"{number:04d}_abc"
    trial.mkdir()
    (trial / "config.json").write_text(json.dumps({"trial": number, "config": {"method": "kd", "alpha": 0.25}}))
    rows = [{"report": r, "accuracy": 0.5 + r / 100, "step": r} for r in range(1, reports + 1)]
    (trial / "reports.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if state:
        (trial / "trial.json").write_text(json.dumps({"state": state, "reason": "x"}))
    for report in at:
        write_checkpoint(trial / f"checkpoint_{report:06d}", report, done)
    return trial


def write_checkpoint(path, report, done=False):
    (path / "student").mkdir(parents=True)
    (path / "student" / "model.safetensors").write_bytes(bytes(100 + report))
    if not done:
        (path / "state.pt").write_bytes(b"state")
    checkpoints.seal(path, report)


def rows_of(trial):
    return [json.loads(line)["report"] for line in (trial / "reports.jsonl").read_text().splitlines()]


def test_ended_trials_stay_as_they_are(folder, settings):
    trials = [
        write_trial(folder, 0, 4, "finished", at=(4,), done=True),
        write_trial(folder, 1, 2, "stopped"),
        write_trial(folder, 2, 1, "failed"),
    ]
    before = [(path, path.read_bytes()) for trial in trials for path in trial.rglob("*") if path.is_file()]
    past = restore_trials(folder, settings, errored=False)
    assert [past.trials[n].state for n in range(3)] == ["finished", "stopped", "failed"]
    assert past.ended == 3 and past.restarts == {} and past.notes == []
    assert [(path, path.read_bytes()) for path, _ in before] == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda checkpoint: (checkpoint / "student/model.safetensors").write_bytes(bytes(3)),
        lambda checkpoint: (checkpoint / "student/model.safetensors").write_bytes(b"x" * 104),
        lambda checkpoint: (checkpoint / "checkpoint.json").write_text(""),
        lambda checkpoint: shutil.rmtree(checkpoint / "student"),
        lambda checkpoint: shutil.rmtree(checkpoint),
    ],
)
def test_the_best_trial_runs_again_when_its_student_is_lost(folder, settings, damage):
    trial = write_trial(folder, 0, 4, "finished", at=(4,), done=True)
    damage(trial / "checkpoint_000004")
    other = write_trial(folder, 1, 2, "stopped")
    past = restore_trials(folder, settings, errored=False)
    assert past.trials[0].state == "running" and past.trials[0].values == {} and past.ended == 1
    assert "has lost its student" in past.notes[0] and not trial.exists() and other.exists()


def test_an_unfinished_trial_goes_on_from_its_newest_checkpoint(folder, settings):
    trial = write_trial(folder, 0, 3, at=(1, 2))
    past = restore_trials(folder, settings, errored=False)
    assert past.restarts == {0: trial / "restart"} and checkpoints.report_of(trial / "restart") == 2
    assert rows_of(trial) == [1, 2] and past.trials[0].values == {1: 0.51, 2: 0.52}
    assert past.trials[0].state == "running" and past.trials[0].params == {"alpha": 0.25}
    assert not list(trial.glob("checkpoint_*")), "Ray numbers its own anew"
    again = restore_trials(folder, settings, errored=False)
    assert again == past, "taking up may be interrupted and done again"


def test_a_newer_checkpoint_replaces_where_it_was_taken_up_before(folder, settings):
    trial = write_trial(folder, 0, 3)
    write_checkpoint(trial / "restart", 1)
    write_checkpoint(trial / "checkpoint_000000", 3)
    assert checkpoints.report_of(restore_trials(folder, settings, errored=False).restarts[0]) == 3
    assert rows_of(trial) == [1, 2, 3]


@pytest.mark.parametrize("damage", ["truncated", "changed", "unsealed", "lost"])
def test_a_damaged_checkpoint_is_not_used(folder, settings, damage):
    """An older whole one is; without any the trial starts again, and that is said."""
    trial = write_trial(folder, 0, 3, at=(1, 3))
    newest = trial / "checkpoint_000003"
    if damage == "truncated":
        (newest / "state.pt").write_bytes(b"st")
    elif damage == "changed":
        (newest / "student" / "model.safetensors").write_bytes(bytes(102) + b"x")
    elif damage == "unsealed":
        (newest / checkpoints.SEAL).unlink()
    else:
        (newest / "state.pt").unlink()
    past = restore_trials(folder, settings, errored=False)
    assert checkpoints.report_of(past.restarts[0]) == 1 and rows_of(trial) == [1]
    (trial / "restart" / "state.pt").write_bytes(b"")
    past = restore_trials(folder, settings, errored=False)
    assert past.restarts == {} and past.trials[0].values == {} and not trial.exists()
    assert past.notes == ["trial 0: its checkpoint is damaged; it starts again."]
    assert past.trials[0].params == {"alpha": 0.25}, "with the parameters that it had"


def test_without_a_checkpoint_a_trial_starts_again(folder, settings):
    trial = write_trial(folder, 1, 2)
    past = restore_trials(folder, settings, errored=False)
    assert not trial.exists() and past.notes == [] and past.trials[1].state == "running"


def test_killed_between_the_last_report_and_its_end_it_has_finished(folder, settings):
    trial = write_trial(folder, 0, 4, at=(4,), done=True)
    past = restore_trials(folder, settings, errored=False)
    assert past.trials[0].state == "finished" and past.ended == 1
    assert load(folder).trials.iloc[0]["state"] == "finished" and (trial / "checkpoint_000004").is_dir()


@pytest.mark.parametrize(("better", "state"), [(3, "finished"), (2, "running")])
def test_a_trial_that_is_not_among_the_best_has_finished_without_its_student(folder, settings, better, state):
    for number in range(better):
        write_trial(folder, number, 4, "finished", at=(4,), done=True)
    trial = write_trial(folder, 3, 4)
    past = restore_trials(folder, settings, errored=False)
    assert past.trials[3].state == state and trial.exists() == (state == "finished")


def test_a_finished_trial_whose_reports_were_truncated_runs_again(folder, settings):
    trial = write_trial(folder, 0, 4, "finished", at=(4,), done=True)
    text = (trial / "reports.jsonl").read_text()
    (trial / "reports.jsonl").write_text(text[: len(text) // 2])
    past = restore_trials(folder, settings, errored=False)
    assert past.trials[0].state == "running" and past.notes[0].startswith("trial 0: 2 of its 4 reports are left")


@pytest.mark.parametrize(("errored", "ended"), [(False, 1), (True, 0)])
def test_failed_trials_are_taken_up_when_asked_for(folder, settings, errored, ended):
    trial = write_trial(folder, 0, 2, "failed", at=(1,))
    past = restore_trials(folder, settings, errored)
    assert past.ended == ended and bool(past.restarts) == errored
    assert (trial / "trial.json").exists() != errored


def test_a_damaged_file_of_one_trial_costs_no_other(folder, settings):
    write_trial(folder, 0, 4, "finished")
    broken: Path = write_trial(folder, 1, 4, "finished")
    (broken / "config.json").write_text('{"trial": 1, "conf')
    past = restore_trials(folder, settings, errored=False)
    assert list(past.trials) == [0] and "0001_abc/config.json: is not JSON" in past.notes[0]


def test_a_search_of_an_earlier_version_goes_on_by_last_evaluations(folder):
    """Its settings name what is gone, and by the means of the last three another trial would be the best."""
    (folder / "settings.yaml").write_text(
        SPACE.replace("4}\nasha", "4, judge_by: mean_of_last_3, learn_from: last}\nasha")
    )
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"judge_by": "mean_of_last_3"}))
    for number, values in enumerate(((0.9, 0.9, 0.9, 0.6), (0.5, 0.6, 0.7, 0.8))):
        trial = write_trial(folder, number, 4, "finished", at=(4,), done=True)
        rows = [{"report": r, "accuracy": value, "step": r} for r, value in enumerate(values, start=1)]
        (trial / "reports.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = loader.load(folder / "settings.yaml", stored=True)
    past = restore_trials(folder, settings, errored=False)
    assert past.ended == 2 and ["last evaluations" in note for note in past.notes] == [True]
    shutil.rmtree(folder / "results/0001_abc/checkpoint_000004")
    past = restore_trials(folder, settings, errored=False)
    assert past.trials[1].state == "running" and past.trials[0].state == "finished"
    stored = identifying_settings(settings)
    earlier = stored | {"search": stored["search"] | {"judge_by": "mean_of_last_3", "learn_from": "last"}}
    assert differences({"settings": earlier}, {"settings": stored}) == []
