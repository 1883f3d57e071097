"""Searches killed by process id at different moments and resumed: nothing finished is lost, nothing is there twice."""

import json
import os
import signal
import subprocess
import time

import pytest

from fsd_tune.errors import InputError
from fsd_tune.report.results import load
from fsd_tune.search.api import resume, run
from fsd_tune.storage import checkpoints
from tests.helpers.searching import SCRIPT, SPACE, agree, as_if_uninterrupted, command, gone, kill, short_folder

TIMES = ("train_seconds", "evaluation_seconds")


def until(condition, driver, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, driver.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


SAVED = "results/*/checkpoint_*/checkpoint.json"
MOMENTS = {
    # While the memory is built, in the middle of trials, with one of them ended, and everything at once.
    "driver, building": ("driver", lambda folder: (folder / "memory").is_dir()),
    "driver, after a checkpoint": (
        "driver",
        lambda folder: list(folder.glob(SAVED)),
    ),
    "workers and driver": ("workers", lambda folder: list(folder.glob(SAVED))),
    "everything, a trial has ended": ("all", lambda folder: list(folder.glob("results/*/trial.json"))),
}


SHAPES = {(3, "copy", None), (2, "teacher", None), (2, "random", 8)}


def with_shapes(text):
    """A search over depth, start and width, in which each trial has another shape."""
    first = "first: [{layers: 2, start: teacher}, {layers: 2, start: random, hidden_size: 8}]"
    shapes = "{layers: {choice: [2, 3]}, start: {choice: [copy, teacher, random]}, hidden_size: {choice: [null, 8]}}"
    text = text.replace("{choice: [fsd_ilg, kd, ce]}", "fsd_ilg").replace("student: {layers: 2}", f"student: {shapes}")
    return text.replace("{trials: 3}", f"{{trials: 3, {first}}}")


def check_shapes(results):
    """Trials, the best student and the report have the shapes that were searched."""
    names = ["layers", "start", "hidden_size"]
    assert set(results.trials[names].itertuples(index=False, name=None)) == SHAPES
    best = {name: value for name, value in results.best[names].items() if value is not None}
    record = json.loads((results.folder / "best" / "fsd_tune.json").read_text())
    model, _ = results.student()
    assert record["student"] == best and record["score"] == results.best["score"]
    assert model.config.num_hidden_layers == best["layers"]
    assert model.config.hidden_size == best.get("hidden_size", 16)
    # A start for each shape in the space: two depths; copy, teacher, and random with two widths.
    assert len(list((results.folder / "memory").glob("start-*"))) == 2 * 4
    assert len(list((results.folder / "memory").glob("memory-*"))) == 1
    page = (results.folder / "report.html").read_text()
    assert all(f">{name}<" in page for name in names), "columns of the table of trials"
    assert results.summary.student.layers == [2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed(moment, glue, teacher, tmp_path):
    target, reached = MOMENTS[moment]
    folder, space_file = tmp_path / "R", tmp_path / "space.yaml"
    text = SPACE.replace("epochs: 2", "epochs: 100").replace("trials: 6", "trials: 3")
    has_shapes = moment == "workers and driver"
    space_file.write_text(with_shapes(text) if has_shapes else text)
    with short_folder() as temporary:
        words = command(glue, teacher, folder, space_file, temporary)
        driver = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
        until(lambda: reached(folder), driver)
        assert kill(driver, target), f"no {target} to kill"
        kill(driver, "driver")
        gone(driver)
    before = {path: path.read_bytes() for path in folder.glob("results/*/trial.json")}
    rows = {path.parent: (path.parent / "reports.jsonl").read_bytes() for path in before}
    with short_folder() as temporary:
        again = subprocess.run(
            [SCRIPT, "resume", folder, "--temp-dir", temporary],
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    assert again.returncode == 0, again.stderr
    results = load(folder)
    assert len(results.trials) == 3 and set(results.trials["state"]) <= {"finished", "stopped"}
    agree(results)
    assert {path: path.read_bytes() for path in before} == before, "what had ended was not run again"
    assert {path: (path / "reports.jsonl").read_bytes() for path in rows} == rows
    assert len((folder / "memory" / "passes.jsonl").read_text().splitlines()) == 1
    if "checkpoint" in moment:
        assert "1 of them from a checkpoint" in again.stderr or "2 of them from a checkpoint" in again.stderr
    as_if_uninterrupted(results, glue)
    if has_shapes:
        check_shapes(results)


NOTICES = {
    "SIGTERM": lambda driver: os.kill(driver.pid, signal.SIGTERM),
    "Ctrl-C": lambda driver: os.killpg(driver.pid, signal.SIGINT),
    "time budget": lambda driver: None,
}


@pytest.mark.slow
@pytest.mark.parametrize("notice", NOTICES)
def test_with_notice_every_running_trial_is_saved_where_it_is(notice, glue, teacher, tmp_path):
    """Between two reports, too, and also if a checkpoint is not due."""
    folder, space_file = tmp_path / "R", tmp_path / "space.yaml"
    is_budget = notice == "time budget"
    # The budget counts from the start of the workers, which takes longer than a short trial.
    epochs, batch_size = (1000, 2) if is_budget else (300, 8)
    text = SPACE.replace("epochs: 2", f"epochs: {epochs}").replace("{trials: 6}", "{trials: 2}")
    text = text.replace("{reports: 4}", "{reports: 4, grace: 4}").replace("batch_size: 8", f"batch_size: {batch_size}")
    space_file.write_text(text)
    flags = ("--time-budget=60s",) if is_budget else ()
    with short_folder() as temporary:
        words = command(glue, teacher, folder, space_file, temporary, *flags)
        driver = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
        if not is_budget:
            # Both trials are in training, on the way to their second reports.
            until(lambda: len(list(folder.glob("results/*/reports.jsonl"))) == 2, driver)
            time.sleep(1)
        NOTICES[notice](driver)
        _, said = driver.communicate(timeout=300)
        gone(driver)
    # A budget that ends before a trial has finished is too short, and the search says so.
    assert driver.returncode == (1 if is_budget else 130), said
    begun = {path.parent for path in folder.glob("results/*/config.json")}
    open_trials = {trial for trial in begun if not (trial / "trial.json").exists()}
    assert open_trials
    steps = {}
    for trial in open_trials:
        newest = checkpoints.newest(trial)
        assert newest is not None, trial
        checkpoint, _ = newest
        steps[trial] = json.loads((checkpoint / checkpoints.SEAL).read_text())["step"]
    assert all(steps.values()) and any(step % (10 * epochs // batch_size) for step in steps.values())
    if notice != "SIGTERM":
        return  # All notices save in the same way, so that one continuation is enough.
    with short_folder() as temporary:
        again = subprocess.run(
            [SCRIPT, "resume", folder, "--temp-dir", temporary],
            capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert f"{len(open_trials)} of them from a checkpoint" in again.stderr
    results = load(folder)
    agree(results)
    as_if_uninterrupted(results, glue)


MIXED = (
    SPACE.replace("{low: 1e-4, high: 1e-2, log: true}", "{choice: [0.002, 0.004, 0.008, 1.0]}")
    .replace("epochs: 2", "epochs: 20\n  weight_decay: {choice: [0.0, 10.0]}")
    .replace("trials: 6", "trials: 30")
)


@pytest.mark.slow
def test_study_and_results_agree_on_thirty_trials_of_every_kind(glue, teacher, tmp_path):
    """Finished, stopped, diverged (a step of 1 with a decay of 10) and crashed (workers killed), killed and resumed."""
    folder, space_file = tmp_path / "R", tmp_path / "space.yaml"
    space_file.write_text(MIXED)

    def ended():
        return len(list(folder.glob("results/*/trial.json")))

    with short_folder() as temporary:
        words = command(glue, teacher, folder, space_file, temporary, "--sampler=random")
        driver = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
        until(lambda: ended() >= 3, driver)
        crashed = "died|never ran"
        while not load(folder).trials.query("state == 'failed'")["reason"].str.contains(crashed).any():
            # A trial of a second is seldom caught three times; its start takes longer.
            until(lambda: kill(driver, "starting"), driver)
        until(lambda: ended() >= 12, driver)
        kill(driver, "all")
        gone(driver)
    ended_before = {path: path.read_bytes() for path in folder.glob("results/*/trial.json")}
    with short_folder() as temporary:
        subprocess.run([SCRIPT, "resume", folder, "--temp-dir", temporary], check=True, timeout=400)
    results = load(folder)
    assert len(results.trials) == 30 and set(results.trials["state"]) == {"finished", "stopped", "failed"}
    failed = results.trials.query("state == 'failed'")["reason"]
    assert failed.str.startswith("diverged").any() and failed.str.contains(crashed).any()
    agree(results)
    assert {path: path.read_bytes() for path in ended_before} == ended_before


@pytest.mark.slow
def test_a_disk_that_fills_during_the_search(glue, teacher, tmp_path):
    """The search stops and says so; what had ended is whole, and with room again it goes on."""
    disk, space_file = tmp_path / "disk", tmp_path / "space.yaml"
    disk.mkdir()
    space_file.write_text(SPACE.replace("epochs: 2", "epochs: 40"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    folder, filler = disk / "R", disk / "filler"
    try:
        with short_folder() as temporary:
            words = command(glue, teacher, folder, space_file, temporary)
            driver = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
            until(lambda: list(folder.glob("results/*/trial.json")), driver)
            with filler.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
                while True:
                    stream.write(b"0" * 4096)
            _, said = driver.communicate(timeout=300)
        assert driver.returncode == 1
        *_, reason, again = said.strip().splitlines()
        assert reason.startswith("failed: ") and "No space left on device" in reason and str(folder) in reason
        assert again == f"To continue: fsd-tune resume {folder}"
        ended = {path: path.read_bytes() for path in folder.glob("results/*/trial.json")}
        assert ended and all(json.loads(text)["state"] for text in ended.values())
        filler.unlink()
        with short_folder() as temporary:
            subprocess.run([SCRIPT, "resume", folder, "--temp-dir", temporary], check=True, timeout=200)
        results = load(folder)
        agree(results)
        assert len(results.trials) == 6 and {path: path.read_bytes() for path in ended} == ended
    finally:
        # Lazily: Optuna's connection to study.db stays open in this process.
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def finished(ray_session, glue, teacher, tmp_path):
    """A small search that is done, with a teacher and data of its own that may be changed."""
    import shutil

    shutil.copytree(glue / "SST-2", tmp_path / "data" / "SST-2")
    shutil.copytree(teacher, tmp_path / "teacher")
    space_file = tmp_path / "space.yaml"
    space_file.write_text(SPACE)
    from fsd_tune.settings import loader

    run(
        loader.load(space_file, {"search.trials": "2"}), task="sst2", teacher=str(tmp_path / "teacher"),
        data=tmp_path / "data", output=tmp_path / "R",
    )  # fmt: skip
    yield tmp_path / "R"


def test_resume_adds_trials_and_names_what_has_changed(finished, tmp_path):
    more = resume(finished, {"search.trials": "3"})
    assert len(more.trials) == 3
    agree(more)
    settings_file, teacher = finished / "settings.yaml", tmp_path / "teacher" / "config.json"
    data, config = tmp_path / "data" / "SST-2" / "train.tsv", teacher.read_text()
    with pytest.raises(InputError, match="--alpha: cannot change in a search that has begun; --trials, --time-budget"):
        resume(finished, {"space.alpha": "0.3"})
    text, lines = settings_file.read_text(), data.read_text()
    settings_file.write_text(text.replace("batch_size: 8", "batch_size: 4"))
    teacher.write_text(config.replace('"hidden_dropout_prob": 0.1', '"hidden_dropout_prob": 0.2'))
    data.write_text(lines.replace("the film", "the dog"))
    with pytest.raises(InputError) as error:
        resume(finished, {"search.trials": "4"})
    assert list(error.value.problems) == [
        f"{finished}: space.batch_size 8 there, 4 now.",
        f"{finished}: another teacher.",
        f"{finished}: another training split.",
    ]
    settings_file.write_text(text)
    teacher.write_text(config)
    data.write_text(lines)
    (finished / "study.db").write_bytes(b"damaged")
    agree(resume(finished, {"search.trials": "4"}))
    with pytest.raises(InputError, match="holds no search that has begun"):
        resume(tmp_path)
