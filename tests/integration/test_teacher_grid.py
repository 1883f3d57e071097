"""Teachers of several learning rates and seeds: what is kept, what is trained again, what a user reads."""

import json
import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fsd_tune.cli.values import numbers
from fsd_tune.errors import FsdTuneError, InputError, ProblemCollector
from fsd_tune.progress import Display
from fsd_tune.training import teacher_grid
from fsd_tune.training.distiller import Distiller
from fsd_tune.training.teacher import TeacherConfig, fine_tune
from fsd_tune.training.teacher_workers import Trained
from fsd_tune.training.unfinished import UnfinishedRun
from tests.helpers.searching import SCRIPT, gone, short_folder

CONFIG = {
    "learning_rate": 5e-5, "epochs": 2, "batch_size": 8, "warmup_ratio": 0.0, "weight_decay": 0.0,
    "gradient_accumulation": 1,
}  # fmt: skip


class Here:
    """Stands for Ray's workers: trains in this process, one after the other."""

    trained: list[str]

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def require(self, folder, paths):
        pass

    def train(self, runs, display, before):
        for name, run in runs.items():
            self.trained.append(name)
            try:
                yield Trained(name, fine_tune(run, True, Display(quiet=True)))
            except FsdTuneError as error:
                yield Trained(name, None, str(error))


@pytest.fixture
def grid(monkeypatch, base, glue, tmp_path):
    monkeypatch.setattr(teacher_grid, "Workers", Here)
    Here.trained = []

    def train(rates, seeds, *, overwrite=False, **changes):
        run = TeacherConfig(str(base), "sst2", glue, tmp_path / "teacher", CONFIG, 32, False, 0, 2, "cpu", "float32")
        return teacher_grid.train(
            replace(run, **changes), rates, seeds, cpus=1, gpus=None, overwrite=overwrite, address=None,
            ray_temporary=None, display=Display(quiet=True),
        )  # fmt: skip

    return train


def seeds_of(names):
    return [name.split("-")[1] for name in names]


@pytest.mark.slow
def test_the_best_on_dev_is_kept_with_the_whole_table(grid, tmp_path):
    made = grid([1e-5, 3e-3], [1, 2], task="rte", config=CONFIG | {"epochs": 12, "warmup_ratio": 0.1})
    table = made["grid"]
    assert [(row["learning_rate"], row["seed"]) for row in table] == [(1e-5, 1), (1e-5, 2), (3e-3, 1), (3e-3, 2)]
    scores = [row["score"] for row in table]
    first = table[scores.index(max(scores))]
    assert (made["config"]["learning_rate"], made["seed"]) == (first["learning_rate"], first["seed"])
    assert made["score"] == max(scores) > min(scores)
    assert json.loads((tmp_path / "teacher" / "fsd_tune.json").read_text()) == made
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"], "nothing else is left"
    best = [line for line in teacher_grid.grid_lines(made) if line.endswith("<- best")]
    assert len(best) == 1 and f"{first['learning_rate']:g}" in best[0] and f"{max(scores):.4f}" in best[0]


def test_a_candidate_that_diverges_does_not_lose_the_others(grid):
    # A step of 1 with a decay of 10 multiplies the weights by -9.
    made = grid([1.0, 1e-3], [3], config=CONFIG | {"weight_decay": 10.0, "epochs": 12})
    bad, good = made["grid"]
    assert bad["state"] == "failed" and bad["score"] is None and "Training diverged" in bad["reason"]
    assert good["state"] == "finished" and made["config"]["learning_rate"] == 1e-3
    assert "Training diverged" in teacher_grid.grid_lines(made)[1]


def test_all_failed_is_an_error_that_names_each(grid, tmp_path, monkeypatch):
    def fail(self, runs, display, before):
        yield from (Trained(name, None, f"out of {name[:4]}") for name in runs)

    monkeypatch.setattr(Here, "train", fail)
    with pytest.raises(FsdTuneError) as error:
        grid([1e-3, 1e-4], [0])
    assert str(error.value) == (
        "all 2 candidates. learning rate 0.001, seed 0: out of lr0. learning rate 0.0001, seed 0: out of lr0."
    )
    assert list(tmp_path.iterdir()) == []


def test_what_has_ended_is_not_trained_again(grid, tmp_path, monkeypatch):
    whole = Here.train

    def broken_off(self, runs, display, before):
        for ended in whole(self, runs, display, before):
            yield ended
            if len(self.trained) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(Here, "train", broken_off)
    with pytest.raises(KeyboardInterrupt):
        grid([1e-3], [1, 2, 3])
    store = tmp_path / "teacher.candidates"
    left = [path.name for path in store.iterdir() if path.is_dir()]
    assert len(list(store.glob("lr*.json"))) == 2 and len(left) == 1, "of the folders the best one's alone"
    assert seeds_of(Here.trained) == ["seed1", "seed2"]
    monkeypatch.setattr(Here, "train", whole)
    # Another number of epochs makes other teachers: nothing of the first is taken for them, and nothing is lost.
    Here.trained = []
    grid([1e-3], [1], config=CONFIG | {"epochs": 1}, output=tmp_path / "teacher")
    assert seeds_of(Here.trained) == ["seed1"] and (store / left[0]).is_dir()
    Here.trained = []
    made = grid([1e-3], [1, 2, 3], overwrite=True)
    assert seeds_of(Here.trained) == ["seed3"] and len(made["grid"]) == 3
    assert not store.exists()


def test_a_candidate_that_is_interrupted_is_continued(grid, tmp_path, monkeypatch):
    saved = UnfinishedRun.save

    def interrupt(self, distiller, reports):
        saved(self, distiller, reports)
        raise KeyboardInterrupt

    monkeypatch.setattr(UnfinishedRun, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        grid([1e-3], [1])
    assert len(list(tmp_path.glob("teacher.candidates/*.unfinished/*/checkpoint_000001"))) == 1
    monkeypatch.setattr(UnfinishedRun, "save", saved)
    loaded = []
    load = Distiller.load

    def note(self, folder):
        loaded.append(folder.name)
        load(self, folder)

    monkeypatch.setattr(Distiller, "load", note)
    made = grid([1e-3], [1])
    assert loaded == ["checkpoint_000001"] and len(made["reports"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_problems_of_a_grid_are_said_together(grid, tmp_path):
    (tmp_path / "teacher.candidates").mkdir()
    (tmp_path / "teacher.candidates" / "thesis.tex").write_text("")
    with pytest.raises(InputError) as error:
        grid([1e-3], [1], model=str(tmp_path / "nothing"), max_length=32)
    assert [line.split(":")[0] for line in error.value.problems] == ["--output", "--model"]
    assert (tmp_path / "teacher.candidates" / "thesis.tex").exists()


def test_values_with_commas():
    problems = ProblemCollector()
    assert numbers("learning_rate", None, "2e-5, 3e-5", 5e-5, problems) == [2e-5, 3e-5]
    assert numbers("seed", None, "3,1", 0, problems) == [3, 1] and numbers("seed", 7, None, 0, problems) == [7]
    assert numbers("seed", None, None, 0, problems) == [0] and problems.lines == []
    numbers("learning_rate", 1e-5, "2e-5,2e-5,x,2,", 5e-5, problems)
    numbers("seed", None, "1.5,-1", 0, problems)
    assert problems.lines == [
        "--learning-rate and --learning-rates: give one of them.",
        "--learning-rates: found 2e-5 more than once.",
        "--learning-rates: found x, but must be numbers above 0, at most 1.",
        "--learning-rates: found 2, but must be numbers above 0, at most 1.",
        "--learning-rates: found nothing between commas, but must be numbers above 0, at most 1.",
        "--seeds: found 1.5, but must be whole numbers from 0 to 4294967295.",
        "--seeds: found -1, but must be whole numbers from 0 to 4294967295.",
    ]


def test_flags_that_do_not_go_together(tmp_path):
    words = ["teacher", "--model", tmp_path / "nothing", "--task", "sst3", "--output", tmp_path / "t"]
    single = subprocess.run(
        [SCRIPT, *words, "--learning-rate", "1e-5", "--learning-rates", "2e-5", "--seeds", "a"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert single.returncode == 2
    lines = [line for line in single.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(":")[1].strip() for line in lines] == [
        "--learning-rate and --learning-rates", "--seeds", "task", "--model",
    ]  # fmt: skip
    alone = subprocess.run([SCRIPT, *words, "--address", "auto"], capture_output=True, text=True, check=False)
    assert "--address: is for several teachers" in alone.stderr and alone.returncode == 2


@pytest.mark.slow
def test_a_killed_grid_on_ray_goes_on_and_gives_what_training_alone_gives(base, glue, tmp_path, one_thread):
    output = tmp_path / "teacher"
    with short_folder() as temporary:
        command = [
            SCRIPT, "teacher", "--model", base, "--task", "sst2", "--data", glue, "--output", output,
            "--learning-rates", "1e-3,3e-3", "--seeds", "1,2", "--epochs", "40", "--batch-size", "4",
            "--max-length", "32", "--precision", "float32", "--device", "cpu", "--temp-dir", temporary,
        ]  # fmt: skip
        driver = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        store = tmp_path / "teacher.candidates"
        deadline = time.monotonic() + 240
        while not list(store.glob("lr*.json")) and time.monotonic() < deadline and driver.poll() is None:
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)
        kept = {path.stem: json.loads(path.read_text()) for path in store.glob("lr*.json")}
        gone(driver)
        assert 1 <= len(kept) <= 3 and not output.exists()

        again = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
        assert "4 candidates, " in again.stderr and "of them there already" in again.stderr
    made = json.loads(again.stdout)
    assert [row["state"] for row in made["grid"]] == ["finished"] * 4 and not store.exists()
    for record in kept.values():
        rows = [
            row for row in made["grid"]
            if (row["learning_rate"], row["seed"]) == (record["config"]["learning_rate"], record["seed"])
        ]  # fmt: skip
        last = record["reports"][-1]
        assert rows[0]["seconds"] == round(last["train_seconds"] + last["evaluation_seconds"], 3), "not trained again"

    # Trained alone, with a candidate's one thread: the same scores, the same weights.
    alone = tmp_path / "alone"
    run = TeacherConfig(str(base), "sst2", glue, alone, made["config"], 32, False, made["seed"], 40, "cpu", "float32")
    fine_tune(run, False, Display(quiet=True))
    single = json.loads((alone / "fsd_tune.json").read_text())
    metrics = [[(row["accuracy"], row["loss"]) for row in each["reports"]] for each in (made, single)]
    assert metrics[0] == metrics[1]
    weights = [load_file(folder / "model.safetensors") for folder in (output, alone)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    fields = set(single) | {"grid"}
    assert set(made) == fields and sorted(p.name for p in output.iterdir()) == sorted(p.name for p in alone.iterdir())
