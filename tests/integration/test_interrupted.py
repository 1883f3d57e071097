"""A search that is interrupted, loses its terminal or the reader of its standard error, each time ended in order."""

import json
import os
import signal
import subprocess

import pytest

from fsd_tune.report.results import load
from fsd_tune.storage import checkpoints
from tests.helpers.searching import (
    SCRIPT,
    SPACE,
    agree,
    as_if_uninterrupted,
    command,
    gone,
    short_folder,
    until,
)

EPOCHS, REPORTS = 300, 10
# `grace` lets no trial be stopped.
LONG = (
    SPACE.replace("epochs: 2", f"epochs: {EPOCHS}")
    .replace("{trials: 6}", "{trials: 3}")
    .replace("{reports: 4}", f"{{reports: {REPORTS}, grace: {REPORTS}}}")
)


def reports_in(folder):
    return sum(len(path.read_text().splitlines()) for path in folder.glob("results/*/reports.jsonl"))


def is_running(folder):
    return json.loads((folder / "summary.json").read_text())["state"] == "running"


def interrupted(driver, folder):
    """Check a search that has ended in order: processes, what it says, and every running trial saved where it is."""
    _, said = driver.communicate(timeout=300)
    assert driver.returncode == 130, said
    assert "To continue: fsd-tune resume" in said and "Traceback" not in said
    assert not gone(driver), "Ray's processes end with the search"
    assert json.loads((folder / "summary.json").read_text())["state"] == "interrupted"
    assert (folder / "report.html").is_file()
    begun = {path.parent for path in folder.glob("results/*/config.json")}
    open_trials = {trial for trial in begun if not (trial / "trial.json").exists()}
    assert open_trials
    steps = []
    for trial in open_trials:
        newest = checkpoints.newest(trial)
        assert newest is not None, trial
        steps.append(json.loads((newest[0] / checkpoints.SEAL).read_text())["step"])
    interval = EPOCHS * 40 // 8 // REPORTS
    assert all(steps) and any(step % interval for step in steps), "between two reports"
    return len(open_trials), said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_interrupted_in_each_way_in_turn_and_continued(glue, teacher, tmp_path):
    """By Ctrl-C, a lost terminal, a scheduler and an impatient user, and at last without a reader of its messages."""
    folder, space_file = tmp_path / "R", tmp_path / "space.yaml"
    space_file.write_text(LONG)

    def start(temporary, resume):
        words = command(glue, teacher, folder, space_file, temporary)
        return subprocess.Popen(
            [SCRIPT, "resume", folder, "--temp-dir", temporary] if resume else words,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    saved = 0
    # To the whole group, as terminals, `timeout` and schedulers do it; Ray's processes must outlive the search's end.
    for number in (signal.SIGINT, signal.SIGHUP):
        before = reports_in(folder)
        with short_folder() as temporary:
            driver = start(temporary, resume=False)
            until(lambda before=before: reports_in(folder) >= before + 2, driver)
            os.killpg(driver.pid, number)
            continued, (saved, said) = saved, interrupted(driver, folder)
        assert not continued or f"{continued} of them from a checkpoint" in said, said
    (folder / "report.html").unlink()
    ended = set(folder.glob("results/*/trial.json"))
    with short_folder() as temporary:
        driver = start(temporary, resume=True)
        until(lambda: set(folder.glob("results/*/trial.json")) - ended, driver)
        os.killpg(driver.pid, signal.SIGTERM)
        until(lambda: not is_running(folder), driver)
        os.kill(driver.pid, signal.SIGINT)
        _, said = driver.communicate(timeout=300)
        assert driver.returncode == 130 and not gone(driver)
    # The end may have been over by then.
    assert (folder / "report.html").is_file() or f"fsd-tune report {folder}" in said
    assert "Traceback" not in said
    kept = {path: path.read_bytes() for path in folder.glob("results/*/trial.json")}
    assert any(json.loads(text)["state"] == "finished" for text in kept.values())
    with short_folder() as temporary:
        driver = start(temporary, resume=True)
        before = reports_in(folder)
        until(lambda: reports_in(folder) > before, driver)
        assert driver.stderr is not None
        driver.stderr.close()
        assert driver.wait(timeout=300) == 0
        assert not gone(driver)
    results = load(folder)
    assert results.summary.state == "done" and results.trials["state"].tolist() == ["finished"] * 3
    assert (folder / "best" / "model.safetensors").is_file()
    assert {path: path.read_bytes() for path in kept} == kept, "what had ended was not run again"
    agree(results)
    as_if_uninterrupted(results, glue)
