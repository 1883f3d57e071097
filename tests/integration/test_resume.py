"""Searches killed by process id at different moments and resumed: nothing finished is lost, nothing is there twice."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from fsd_tune.errors import InputError
from fsd_tune.report.members import chosen_trial, front_of
from fsd_tune.report.results import load
from fsd_tune.search.api import resume, run
from tests.helpers import wandb_files
from tests.helpers.searching import (
    SCRIPT,
    SPACE,
    agree,
    as_if_uninterrupted,
    command,
    gone,
    kill,
    short_folder,
    study_of,
    until,
)


def checkpoints_of(folder):
    """Each checkpoint with the time of its manifest, because a continued trial counts its checkpoints from 0 again."""
    found = set()
    for path in folder.glob("results/*/checkpoint_*/checkpoint.json"):
        with contextlib.suppress(FileNotFoundError):  # Tune keeps the newest alone.
            found.add((path, path.stat().st_mtime_ns))
    return found


def ended_in(folder):
    return set(folder.glob("results/*/trial.json"))


# What is killed, and as soon as what is new in the folder: while the memory is built, in the middle of trials, and
# with one of them ended.
MOMENTS = {
    "driver, building": ("driver", lambda folder: {path for path in [folder / "memory"] if path.is_dir()}),
    "driver, after a checkpoint": ("driver", checkpoints_of),
    "workers and driver": ("workers", checkpoints_of),
    "everything, a trial has ended": ("all", ended_in),
}


SHAPES = {(3, "copy", None), (2, "teacher", None), (2, "random", 8)}


def with_shapes(text):
    """A search over depth, start and width, in which each trial has another shape."""
    first = "first: [{layers: 2, start: teacher}, {layers: 2, start: random, hidden_size: 8}]"
    shapes = "{layers: {choice: [2, 3]}, start: {choice: [copy, teacher, random]}, hidden_size: {choice: [null, 8]}}"
    text = text.replace("{choice: [fsd_ilg, kd, ce]}", "fsd_ilg").replace("student: {layers: 2}", f"student: {shapes}")
    costs = "objectives: [score, parameters], limits: {size_mb: 1}"
    return text.replace("{trials: 3}", f"{{trials: 3, {first}, {costs}}}")


def check_shapes(results):
    """Trials, the best student and the report have the shapes that were searched."""
    names = ["layers", "start", "hidden_size"]
    assert set(results.trials[names].itertuples(index=False, name=None)) == SHAPES
    chosen = chosen_trial(results)
    assert chosen is not None
    best = {name: value for name, value in chosen[names].items() if value is not None}
    record = json.loads((results.folder / "best" / "fsd_tune.json").read_text())
    model, _ = results.student()
    assert record["student"] == best and record["score"] == results.best["score"] == chosen["score"]
    assert model.config.num_hidden_layers == best["layers"]
    assert model.config.hidden_size == best.get("hidden_size", 16)
    # A start for each shape in the space: two depths; copy, teacher, and random with two widths.
    assert len(list((results.folder / "memory").glob("start-*"))) == 2 * 4
    assert len(list((results.folder / "memory").glob("memory-*"))) == 1
    page = (results.folder / "report.html").read_text()
    assert all(f">{name}<" in page for name in names), "columns of the table of trials"
    assert results.summary.student.layers == [2, 3]
    check_front(results)


def check_front(results):
    """The students that no other one beats are there, with their costs, and another can be picked without training."""
    costs = results.trials.set_index("number")[["parameters", "size_mb"]]
    for trial in study_of(results).trials:
        assert trial.user_attrs["parameters"] == costs.loc[trial.number, "parameters"]
    front = front_of(results)
    assert front is not None and front.costs == ("parameters",)
    sizes = {}
    for member in front.members:
        model = AutoModelForSequenceClassification.from_pretrained(results.folder / "best/front" / member.folder)
        sizes[member.number] = model.num_parameters()
        assert model.num_parameters() == member.cost.parameters
    assert list(sizes.values()) == sorted(sizes.values()) and len(sizes) == len(front.members)
    checkpoints = {path: path.stat().st_mtime_ns for path in (results.folder / "results").rglob("*") if path.is_file()}
    again = resume(results.folder, {"search.pick": {"within": 100}})
    assert {path: path.stat().st_mtime_ns for path in checkpoints} == checkpoints
    record = json.loads((results.folder / "best" / "fsd_tune.json").read_text())
    chosen = chosen_trial(again)
    assert chosen is not None and record["trial"] == front.members[0].number == chosen["number"]
    assert again.summary.shapes == results.summary.shapes


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_each_moment_in_turn_and_resumed(glue, teacher, tmp_path):
    """With offline runs of W&B, which say in the end what the folder says."""
    folder, space_file, log = tmp_path / "R", tmp_path / "space.yaml", tmp_path / "log"
    space_file.write_text(with_shapes(SPACE.replace("epochs: 2", "epochs: 200").replace("trials: 6", "trials: 3")))
    environment = os.environ | {"HOME": str(tmp_path)}
    ended: dict[Path, bytes] = {}
    before = ""
    for moment, (target, found) in MOMENTS.items():
        known = found(folder)
        with short_folder() as temporary:
            words = command(glue, teacher, folder, space_file, temporary, "--wandb=offline")
            if before:
                words = [SCRIPT, "resume", folder, "--temp-dir", temporary]
            with log.open("w") as stream:
                driver = subprocess.Popen(words, stderr=stream, start_new_session=True, env=environment)
            until(lambda found=found, known=known: found(folder) - known, driver)
            assert kill(driver, target), f"no {target} to kill: {moment}"
            kill(driver, "driver")
            gone(driver)
        said = log.read_text()
        if "checkpoint" in before:
            assert "1 of them from a checkpoint" in said or "2 of them from a checkpoint" in said, (moment, said)
        for path in ended_in(folder) - ended.keys():
            ended |= {each: each.read_bytes() for each in (path, path.parent / "reports.jsonl")}
        before = moment
    with short_folder() as temporary:
        words = [SCRIPT, "resume", folder, "--temp-dir", temporary]
        again = subprocess.run(words, capture_output=True, text=True, timeout=400, check=False, env=environment)
    assert again.returncode == 0, again.stderr
    results = load(folder)
    assert len(results.trials) == 3 and set(results.trials["state"]) <= {"finished", "stopped"}
    agree(results)
    assert {path: path.read_bytes() for path in ended} == ended, "what had ended was not run again"
    assert len((folder / "memory" / "passes.jsonl").read_text().splitlines()) == 1
    as_if_uninterrupted(results, glue)
    wandb_files.check(folder)
    check_shapes(results)


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

    settings = loader.load(space_file, {"search.trials": "2", "resources.max_concurrent": "1"})
    run(settings, task="sst2", teacher=str(tmp_path / "teacher"), data=tmp_path / "data", output=tmp_path / "R")
    yield tmp_path / "R"


def test_resume_names_what_has_changed_and_adds_trials_also_to_a_damaged_study(finished, tmp_path):
    settings_file, teacher = finished / "settings.yaml", tmp_path / "teacher" / "config.json"
    data, config = tmp_path / "data" / "SST-2" / "train.tsv", teacher.read_text()
    with pytest.raises(InputError, match="--alpha: cannot change in a search that has begun; --trials, --time-budget"):
        resume(finished, {"space.alpha": "0.3"})
    text, lines = settings_file.read_text(), data.read_text()
    settings_file.write_text(text.replace("batch_size: 8", "batch_size: 4"))
    teacher.write_text(config.replace('"hidden_dropout_prob": 0.1', '"hidden_dropout_prob": 0.2'))
    data.write_text(lines.replace("the film", "the dog"))
    with pytest.raises(InputError) as error:
        resume(finished, {"search.trials": "3"})
    assert list(error.value.problems) == [
        f"{finished}: space.batch_size 8 there, 4 now.",
        f"{finished}: another teacher.",
        f"{finished}: another training split.",
    ]
    settings_file.write_text(text)
    teacher.write_text(config)
    data.write_text(lines)
    (finished / "study.db").write_bytes(b"damaged")
    more = resume(finished, {"search.trials": "3"})
    assert len(more.trials) == 3
    agree(more)
    with pytest.raises(InputError, match="holds no search that has begun"):
        resume(tmp_path)
