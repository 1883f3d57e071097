"""Confirmations on a real local Ray, with tiny models: one search and one search over kd for the module."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from transformers import AutoModelForSequenceClassification

from fsd_tune.cluster import connection
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.evaluation.confirm import inputs as confirm_inputs
from fsd_tune.evaluation.confirm import stages
from fsd_tune.evaluation.confirm.api import confirm
from fsd_tune.evaluation.confirm.counts import SeedCounts
from fsd_tune.evaluation.confirm.inputs import Configuration, baselines
from fsd_tune.evaluation.confirm.seeds import train_on_seeds
from fsd_tune.evaluation.confirm.sequential import Decision
from fsd_tune.evaluation.scoring import evaluate
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.progress import Display
from fsd_tune.report import confirmation, summary
from fsd_tune.report.results import load
from fsd_tune.search import api as search
from fsd_tune.settings import loader
from fsd_tune.settings.methods import OPTIMISATION
from tests.helpers.searching import SPACE

SMALL: dict[str, Any] = {"top": 2, "seeds": 2, "fresh_seeds": 2}


@pytest.fixture(scope="module")
def searches(ray_session, glue, teacher, tmp_path_factory):
    """Folders of two finished searches, `R` over fsd_ilg and `KD` over kd; not to be written to."""
    root = tmp_path_factory.mktemp("searches")
    for name, methods, trials in (("R", "fsd_ilg", 4), ("KD", "kd", 2)):
        file = root / f"{name}.yaml"
        file.write_text(SPACE)
        flags = loader.parse_flags(["--asha=off", f"--trials={trials}", f"--method={methods}", "--max-concurrent=1"])
        settings = loader.load(file, flags)
        search.run(
            settings, task="sst2", teacher=str(teacher), data=glue, output=root / name, memory=root / "memory"
        )  # fmt: skip
    return root


@pytest.fixture
def folder(searches, tmp_path):
    """A copy of the search, to be confirmed."""
    return shutil.copytree(searches / "R", tmp_path / "R")


@pytest.fixture(scope="module")
def confirmed(searches, tmp_path_factory):
    """A search that was confirmed against tuned kd."""
    folder = shutil.copytree(searches / "R", tmp_path_factory.mktemp("confirmed") / "R")
    confirm(folder, **SMALL, baseline=searches / "KD")
    return folder


@pytest.fixture
def again(confirmed, tmp_path):
    """A copy of the confirmed search."""
    return shutil.copytree(confirmed, tmp_path / "R")


def change(folder, **news):
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | news))


def runs(folder):
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "confirm" / "runs").glob("*.json")}


def test_the_winner_is_confirmed(confirmed, searches):
    made = json.loads((confirmed / "confirm" / "summary.json").read_text())
    results = load(confirmed)
    assert made == results.confirmation
    assert made["selection_seeds"] == [1001, 1002] and made["fresh_seeds"] == [2001, 2002]
    candidates = [one for one in made["configurations"] if one["role"] != "baseline"]
    finished = results.trials[results.trials["state"] == "finished"]
    assert [one["trial"] for one in candidates] == finished["number"].tolist()[:2]
    winner = made["winner"]
    assert winner["selection"]["mean"] == max(one["selection"]["mean"] for one in candidates)
    assert [one["label"] for one in made["configurations"] if "fresh" in one] == [winner["label"], "ce", "kd (tuned)"]
    assert made["optimism"] == {
        "search": winner["search_score"],
        "selection": winner["selection"]["mean"],
        "fresh": winner["fresh"]["mean"],
    }
    assert winner["fresh"]["mean"] == pytest.approx(np.mean(list(winner["fresh"]["scores"].values())))
    kd = next(one for one in made["configurations"] if one["label"] == "kd (tuned)")
    tuned = confirm_inputs.read_finished_search(searches / "KD").configurations()
    assert kd["config"] in [one.config for one in tuned] and "of KD, the best of 2 on" in kd["remark"]
    (chosen, other) = sorted(tuned, key=lambda one: one.config != kd["config"])
    means = {
        one.config["alpha"]: np.mean(
            [run["score"] for run in made["runs"] if f"trial {number} " in run["configuration"]]
        )
        for number, one in ((int(one.label.split()[1]), one) for one in tuned)
    }
    assert kd["selection"]["mean"] == pytest.approx(means[chosen.config["alpha"]])
    assert means[chosen.config["alpha"]] >= means[other.config["alpha"]]
    assert len(made["runs"]) == made["runs_trained"] == (2 + 2) * 2 + 3 * 2 == len(runs(confirmed))


def test_no_teacher_pass_is_paid(confirmed, searches):
    assert load(confirmed).confirmation["teacher_passes"] == 0
    assert len((searches / "memory" / "passes.jsonl").read_text().splitlines()) == 1


def test_given_configurations_share_the_confirmations_runs(again):
    """Equal configurations are trained once, and a run that is there is not trained again."""
    document = load(again).confirmation
    winner, kd = document["winner"]["config"], document["configurations"][-1]["config"]
    before = runs(again)
    found = train_on_seeds(again, {"winner": winner, "kd": kd, "same": dict(winner)}, 2)
    assert runs(again) == before
    last = {(row["configuration"], row["seed"]): row["last"] for row in document["runs"] if row["stage"] == "fresh"}
    labels = {"winner": document["winner"]["label"], "kd": "kd (tuned)", "same": document["winner"]["label"]}
    for name, label in labels.items():
        assert list(found[name]) == [2001, 2002]
        for seed, metrics in found[name].items():
            assert metrics == {"accuracy": pytest.approx(last[label, seed])}
    assert load(again).confirmation == document


def test_a_run_equals_a_single_run(confirmed, searches):
    """The same scores as a fresh workbench on that seed: no state leaks from run to run."""
    from fsd_tune.memory.build import build_artifacts
    from fsd_tune.training.factory import DistillerFactory

    plan = confirm_inputs.plan_confirmation(confirmed, SeedCounts(2, 2, 2), searches / "KD")
    prepared = build_artifacts(plan.spec, lambda *_: None)
    made = load(confirmed).confirmation
    for one, seed in ((made["winner"], 2002), (made["configurations"][-1], 2001)):
        bench = DistillerFactory(plan.searched.settings, plan.spec, open_arrays(prepared, mapped=True))
        distiller = bench.distiller(one["config"], 10, seed)
        values = []
        while not distiller.done:
            values.append(distiller.train_to_next_evaluation()["accuracy"])
        assert values[-1] == one["fresh"]["scores"][str(seed)]


def test_the_students_folder(confirmed, searches, glue):

    best = confirmed / "confirm" / "best"
    model = AutoModelForSequenceClassification.from_pretrained(best)
    assert model.config.num_hidden_layers == 2
    record = json.loads((best / "fsd_tune.json").read_text())
    row = next(row for row in load(confirmed).confirmation["runs"] if row["run"] == record["run"])
    assert (row["stage"], row["seed"], row["score"]) == ("fresh", 2001, record["score"])
    assert (
        evaluate(str(best), "sst2", data=glue, device="cpu", precision="float32")["splits"]["dev"]["accuracy"]
        == row["last"]
    )
    same = [(folder / "best" / "model.safetensors").read_bytes() for folder in (confirmed, searches / "R")]
    assert same[0] == same[1], "the search's own student stays"


def test_what_people_read(confirmed):
    results = load(confirmed)
    lines = confirmation.confirmation_lines(results.confirmation, confirmed)
    winner = results.confirmation["winner"]
    assert lines[0].endswith(f"winner {winner['label']}, confirmed on 2 fresh seeds (2001–2002)")
    assert sum("95% interval" in line and "(2 seeds, p " in line for line in lines) == 2
    assert any("optimism" in line for line in lines) and any(
        "0 paid; 14 runs, 14 trained now" in line for line in lines
    )
    said = next(line for line in summary.summary_lines(results) if "confirmed" in line)
    assert f"{winner['fresh']['mean']:.4f}" in said and "fresh seeds" in said
    assert summary.summary_document(results)["confirmed"]["optimism"] == results.confirmation["optimism"]
    page = (confirmed / "report.html").read_text(encoding="utf-8")
    assert "<h2>Confirmation</h2>" in page and 'id="figure-confirmation"' in page and "kd (tuned)" in page
    table = pd.read_csv(confirmed / "confirm" / "confirm.csv")
    assert table["stage"].tolist().count("fresh") == 3 and set(table["role"]) == {"candidate", "winner", "baseline"}


def test_again_trains_nothing_and_needs_no_ray(again, searches, monkeypatch):
    before = runs(again)
    monkeypatch.setattr(connection, "connect", lambda *_: pytest.fail("Ray was started"))
    made = confirm(again, **SMALL, baseline=searches / "KD")
    assert made["runs_trained"] == 0 and runs(again) == before


def test_seeds_are_added_until_nothing_is_open(again, searches, monkeypatch):
    """Of two baselines one is decided after three seeds, the other after five."""
    shown: list[str] = []
    calls: list[int] = []

    def decide(values, error, most, level):
        assert (most, level) == (6, 0.975)
        calls.append(len(values))
        return Decision.DECIDED if len(calls) == 1 or len(values) == 5 else Decision.OPEN

    class Showing(Display):
        def line(self, text):
            shown.append(text)

    monkeypatch.setattr(stages, "decide", decide)
    counts = {name: SMALL[name] for name in ("top", "seeds")}
    made = confirm(again, **counts, max_seeds=6, baseline=searches / "KD", display=Showing(quiet=True))
    assert made["fresh_seeds"] == [2001, 2002, 2003, 2004, 2005]
    assert [one["pairs"] for one in made["differences"]] == [3, 5] and made["runs_trained"] == 3 + 2 * 2
    assert all(one["sequential"] and one["p"] is None for one in made["differences"])
    assert sum("decided after" in line for line in shown) == 2
    assert any("fresh seeds show a difference of" in line for line in shown) and calls == [3, 3, 4, 5]
    assert load(again).confirmation == made and "added one by one" in (again / "report.html").read_text()


def test_more_seeds_train_the_new_ones_and_what_is_damaged(again, searches):
    """A damaged run and a student that is gone are made again, to the same scores; whole runs stay as they are."""
    before, kept = load(again).confirmation, runs(again)
    damaged = [row["run"] for row in before["runs"][:2]]
    student = next(row["run"] for row in before["runs"] if row["stage"] == "fresh")
    (again / "confirm" / "runs" / f"{damaged[0]}.npy").write_bytes(b"half")
    (again / "confirm" / "runs" / f"{damaged[1]}.json").write_text("{")
    shutil.rmtree(again / "confirm" / "best")
    made = confirm(again, top=2, seeds=2, fresh_seeds=3, baseline=searches / "KD")
    assert made["runs_trained"] == 3 + 3 and made["fresh_seeds"] == [2001, 2002, 2003]
    for name in kept.keys() - {*damaged, student}:
        assert runs(again)[name] == kept[name]
    for now, then in zip(made["configurations"], before["configurations"], strict=True):
        assert now.get("selection") == then.get("selection")
        if "fresh" in then:
            assert then["fresh"]["scores"].items() <= now["fresh"]["scores"].items()
    assert (again / "confirm" / "best" / "config.json").is_file()


def test_a_configuration_with_a_failed_run_cannot_win(again, searches):
    """Its run is made a failed one on disk: the other candidate wins; when that fails, too, nothing does."""
    before = load(again).confirmation
    for expected in ("other", "none"):
        made = load(again).confirmation
        row = next(row for row in made["runs"] if row["configuration"] == made["winner"]["label"])
        path = again / "confirm" / "runs" / f"{row['run']}.json"
        failed = {"state": "failed", "reason": "diverged: loss is nan at step 3", "score": None}
        path.write_text(json.dumps(json.loads(path.read_text()) | failed))
        if expected == "other":
            made = confirm(again, **SMALL, baseline=searches / "KD")
            assert made["winner"]["label"] != before["winner"]["label"]
            entry = next(one for one in made["configurations"] if one["label"] == before["winner"]["label"])
            assert entry["selection"]["failed"] == [row["seed"]]
            assert ", 1 diverged" in "\n".join(confirmation.confirmation_lines(made, again))
            record = json.loads((again / "confirm" / "best" / "fsd_tune.json").read_text())
            assert record["config"] == made["winner"]["config"], "the new winner's student"
        else:
            with pytest.raises(FsdTuneError, match="No configuration has trained on all selection seeds"):
                confirm(again, **SMALL, baseline=searches / "KD")


class Interrupting(Display):
    """Ctrl-C as soon as `after` runs have ended."""

    def __init__(self, after):
        super().__init__(quiet=True)
        self._left = after

    def line(self, text):
        self._left -= ", seed " in text
        if self._left == 0:
            raise KeyboardInterrupt


def test_interrupted_and_continued(folder):
    with pytest.raises(KeyboardInterrupt):
        confirm(folder, **SMALL, display=Interrupting(3))
    kept = runs(folder)
    assert len(kept) == 3 and not (folder / "confirm" / "summary.json").exists()
    made = confirm(folder, **SMALL)
    assert made["runs_trained"] == 10 - 3 and {name: runs(folder)[name] for name in kept} == kept
    assert [one["baseline"] for one in made["differences"]] == ["ce", "kd (defaults, untuned)"]
    winner, kd = made["winner"]["config"], made["configurations"][-1]["config"]
    assert {name: kd[name] for name in OPTIMISATION} == {name: winner[name] for name in OPTIMISATION}
    import ray

    assert ray.util.list_named_actors(all_namespaces=True) == [], "the memory's actor has left"


@pytest.mark.parametrize("method", ["kd", "ce"])
def test_a_winner_that_is_a_baseline_is_not_trained_twice(method):
    shared = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 8, "warmup_ratio": 0.0}
    shared |= {"weight_decay": 0.0, "gradient_accumulation": 1}
    own = {"method": method, **({"alpha": 0.3, "temperature": 2.0} if method == "kd" else {}), **shared}
    tuned = Configuration("kd (tuned)", own) if method == "kd" else None
    others, notes = baselines(Configuration("trial 0", own, 0, 0.8), tuned)
    assert [one.config["method"] for one in others] == [{"kd": "ce", "ce": "kd"}[method]] and len(notes) == 1


def test_baselines_have_the_winners_shape():
    shape = {"layers": 3, "start": "random", "hidden_size": None}
    optimisation = dict.fromkeys(OPTIMISATION, 1)
    others, _ = baselines(Configuration("trial 0", {"method": "fsd_i", **shape, "beta": 1.0, **optimisation}), None)
    assert [{name: one.config[name] for name in shape} for one in others] == [shape] * 2


def test_a_search_of_ce_alone(ray_session, glue, teacher, tmp_path):
    """Its kd baseline needs a teacher memory that the search had no use for: one pass, which is said."""
    file = tmp_path / "ce.yaml"
    file.write_text(SPACE)
    settings = loader.load(file, loader.parse_flags(["--asha=off", "--trials=1", "--method=ce", "--max-concurrent=1"]))
    search.run(settings, task="sst2", teacher=str(teacher), data=glue, output=tmp_path / "R")
    made = confirm(tmp_path / "R", top=1, seeds=1, fresh_seeds=2)
    assert [one["baseline"] for one in made["differences"]] == ["kd (defaults, untuned)"]
    assert made["teacher_passes"] == 1 and "ce is the winner itself" in made["notes"][0]


# ---------------------------------------------------------------- wrong input


def problems(*arguments, **more):
    with pytest.raises(InputError) as error:
        confirm(*arguments, **more)
    return list(error.value.problems)


def test_every_problem_is_said_at_once(folder, searches, tmp_path):
    change(folder, state="interrupted")
    found = problems(folder, top=0, seeds=0, fresh_seeds=1, baseline=tmp_path / "none")
    assert [line.split(":")[0] for line in found] == [
        "--top",
        "--seeds",
        "--fresh-seeds",
        f"{folder} is interrupted, but must be a finished search; continue it",
        "--baseline",
    ]
    assert not (folder / "confirm").exists()


def test_a_folder_of_an_earlier_version_is_refused_and_its_command_completes_it(folder, searches, glue, teacher):
    text = json.loads((folder / "summary.json").read_text())
    text.pop("inputs")
    (folder / "summary.json").write_text(json.dumps(text))
    found = problems(folder)
    assert len(found) == 1 and "does not record its inputs" in found[0] and "fsd-tune search" in found[0]
    settings = loader.load(folder / "settings.yaml")
    memory = searches / "memory"
    search.run(settings, task="sst2", teacher=str(teacher), data=glue, output=folder, memory=memory)
    inputs = {"task": "sst2", "teacher": str(teacher), "data": str(glue), "memory": str(memory), "device": "auto"}
    assert json.loads((folder / "summary.json").read_text())["inputs"] == inputs
    confirm_inputs.plan_confirmation(folder, SeedCounts(1, 1, 2), None)


def test_what_has_changed_since_the_search_is_named(folder, glue, teacher, tmp_path):
    other = shutil.copytree(glue, tmp_path / "glue")
    dev = other / "SST-2" / "dev.tsv"
    dev.write_text(dev.read_text().replace("film", "movie", 1).replace("\t1", "\t0"))
    trained = shutil.copytree(teacher, tmp_path / "teacher")
    model = AutoModelForSequenceClassification.from_pretrained(trained)
    model.classifier.bias.data += 1
    model.save_pretrained(trained)
    inputs = json.loads((folder / "summary.json").read_text())["inputs"]
    change(folder, inputs=inputs | {"data": str(other), "teacher": str(trained)})
    settings = (folder / "settings.yaml").read_text()
    (folder / "settings.yaml").write_text(settings.replace("seed: 0", "seed: 1"))
    assert problems(folder) == [
        f"{folder}: search.seed 0 there, 1 now.",
        f"{folder}: another teacher.",
        f"{folder}: another dev split.",
    ]


def test_a_baseline_must_be_like_the_search(folder, searches, tmp_path):
    kd = shutil.copytree(searches / "KD", tmp_path / "KD")
    settings = (kd / "settings.yaml").read_text()
    (kd / "settings.yaml").write_text(
        settings.replace("layers: 2", "layers: 3").replace("max_length: 32", "max_length: 16")
    )
    identity = json.loads((kd / "summary.json").read_text())["identity"]
    change(kd, identity=identity | {"teacher": "another"})
    place = f"--baseline: {kd}"
    assert problems(folder, baseline=kd)[:2] == [
        f"{place} has student.layers 3, but must have 2 as {folder}.",
        f"{place} has data.max_length 16, but must have 32 as {folder}.",
    ]
    assert "has changed between the searches" in problems(folder, baseline=kd)[2]
    assert problems(folder, baseline=folder) == [f"--baseline: {folder} has no finished trial of method kd."]
    inputs = json.loads((kd / "summary.json").read_text())["inputs"]
    change(kd, inputs=inputs | {"task": "rte"})
    assert problems(folder, baseline=kd) == [f"{place} searched task rte, but must be sst2."]


def test_notes_on_an_unequal_baseline(folder, searches):
    plan = confirm_inputs.plan_confirmation(folder, SeedCounts(9, 1, 2), searches / "KD")
    assert plan.notes == (
        "--top 9: the search has 4 different finished configurations.",
        f"--baseline: kd was tuned in 2 trials, {folder} has 4.",
    )


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"fresh_seeds": 5, "max_seeds": 20}, "--max-seeds: contradicts --fresh-seeds"),
        ({"max_seeds": 2}, "--max-seeds: found 2, but must be in 3..900"),
        ({"detect": 0}, "--detect: found 0, but must be in points, above 0"),
        ({"detect": 0.001, "fresh_seeds": 3}, "--detect: 3 fresh seeds show .* points or more, but found 0.001; "),
    ],
)
def test_numbers_that_contradict(again, counts, said):
    for number, path in enumerate(sorted((again / "confirm" / "runs").glob("*.json"))):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"score": 0.5 + 0.01 * (number % 3)}))
    (found,) = problems(again, **counts)
    assert re.match(said, found), found


def test_a_damaged_confirmation_is_named_and_hides_nothing(folder):
    (folder / "confirm").mkdir()
    (folder / "confirm" / "summary.json").write_text('{"winner": {}}')
    results = load(folder)
    assert results.confirmation == {} and results.problems[0].startswith("confirm/summary.json: metric: field required")


def test_seeds_that_a_search_ran_with_choose_nothing_twice():
    assert confirm_inputs._seeds(1001, 3, {0}) == (1001, 1002, 1003)
    assert confirm_inputs._seeds(2001, 3, {2002, 0}) == (2001, 2003, 2004)


@pytest.mark.slow
def test_a_crashed_worker_loses_no_run(folder):
    import psutil

    killed: list[int] = []

    def kill_one():
        deadline = time.monotonic() + 240
        while not killed and time.monotonic() < deadline:
            if runs(folder):
                # A worker that is idle bears another title.
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):  # It has ended meanwhile.
                        if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::RunWorker"):
                            process.kill()
                            killed.append(process.pid)
                            break
            time.sleep(0.02)

    thread = threading.Thread(target=kill_one)
    thread.start()
    made = confirm(folder, **SMALL)
    thread.join()
    assert killed and made["runs_trained"] == 10
    assert all(row["state"] == "finished" for row in made["runs"])


@pytest.mark.slow
def test_ctrl_c_on_the_command_line_and_the_same_command_again(folder):
    script = Path(sys.executable).parent / "fsd-tune"
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as temporary:
        command = [script, "confirm", folder, "--top=2", "--seeds=4", "--fresh-seeds=2", "--temp-dir", temporary]
        driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        deadline = time.monotonic() + 240
        while not runs(folder):
            assert time.monotonic() < deadline and driver.poll() is None
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGINT)
        _, printed = driver.communicate(timeout=300)
        assert driver.returncode == 130, printed
        assert "To continue: fsd-tune confirm" in printed and "Traceback" not in printed
        kept = runs(folder)
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["runs_trained"] == 14 - len(kept) and {name: runs(folder)[name] for name in kept} == kept
