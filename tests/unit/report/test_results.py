import json
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fsd_tune.errors import InputError
from fsd_tune.report import html_report, results
from fsd_tune.settings.judging import judge
from tests.helpers.result_folders import configuration, report, summary, write_frame, write_search, write_trial

OLD_SEARCH = Path(__file__).parents[2] / "data" / "search_of_0_1"
CONFIG = {"method": "kd", "alpha": 0.5, "temperature": 5.0, "learning_rate": 3e-4, "epochs": 3, "batch_size": 16}


def reports(*values: float) -> list[dict[str, object]]:
    return [report(index, value) for index, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "judge_by", "score"),
    [
        ([0.1, 0.5, 0.7, 0.9], "mean_of_last_3", 0.7),
        ([0.5, 0.7], "mean_of_last_3", 0.6),
        ([0.1, 0.5, 0.7], "last", 0.7),
        ([], "last", math.nan),
        ([], "mean_of_last_3", math.nan),
        ([0.5, math.nan], "mean_of_last_3", math.nan),
        ([math.nan, 0.5], "last", 0.5),
    ],
)
def test_judge(values: list[float], judge_by: str, score: float) -> None:
    assert judge(values, judge_by) == pytest.approx(score, nan_ok=True)


def test_a_trial_is_one_row_with_its_configuration(tmp_path: Path) -> None:
    write_frame(tmp_path)
    write_trial(tmp_path, 0, {**CONFIG, "checkpoint_folder": "x"}, reports(0.5, 0.6, 0.8, 0.7))
    found = results.load(tmp_path)
    row = found.trials.iloc[0]
    assert (row["number"], row["state"], row["reports"], row["steps"], row["steps_total"]) == (
        0,
        "finished",
        4,
        76,
        190,
    )
    assert row["score"] == pytest.approx(0.7)
    assert (row["last"], row["best"]) == (0.7, 0.8)
    assert row["train_seconds"] == pytest.approx(7.0)
    assert {name: row[name] for name in found.hyperparameters} == CONFIG
    assert found.hyperparameters[0] == "method"
    assert found.reports["report"].tolist() == [1, 2, 3, 4]
    assert found.reports["loss/kd"].is_monotonic_decreasing


def test_order_is_finished_by_score_then_stopped_by_reports_then_the_rest(tmp_path: Path) -> None:
    write_frame(tmp_path)
    for number, values, state in [
        (0, (0.7,) * 3, "finished"),
        (1, (0.5,), "failed"),
        (2, (0.9,), "stopped"),
        (3, (0.6,) * 3, "stopped"),
        (4, (0.8,) * 3, "finished"),
        (5, (0.7,) * 3, "finished"),
        (6, (0.65,) * 3, "stopped"),
        (7, (), None),
    ]:
        write_trial(tmp_path, number, CONFIG, reports(*values), state)
    found = results.load(tmp_path)
    assert found.trials["number"].tolist() == [4, 0, 5, 6, 3, 2, 1, 7]
    assert found.best is not None and found.best["number"] == 4
    assert found.standard_error == pytest.approx(math.sqrt(0.8 * 0.2 / 600))


def test_without_a_finished_trial_there_is_no_best(tmp_path: Path) -> None:
    write_frame(tmp_path, {"state": "running"})
    assert results.load(tmp_path).best is None
    write_trial(tmp_path, 0, CONFIG, reports(0.9), "stopped")
    write_trial(tmp_path, 1, CONFIG, reports(0.7), None)
    found = results.load(tmp_path)
    assert found.best is None and found.standard_error is None
    assert found.trials["state"].tolist() == ["stopped", "running"]


def test_a_trial_without_an_end_was_interrupted_when_the_search_is_over(tmp_path: Path) -> None:
    write_frame(tmp_path, {"state": "interrupted"})
    write_trial(tmp_path, 0, CONFIG, reports(0.7), None)
    assert results.load(tmp_path).trials["state"].tolist() == ["interrupted"]


def test_steps_saved_are_what_stopped_trials_left_undone(tmp_path: Path) -> None:
    write_frame(tmp_path, {"state": "running"})
    write_trial(tmp_path, 0, CONFIG, reports(*[0.7] * 10), "finished")
    write_trial(tmp_path, 1, CONFIG, reports(0.5), "stopped", "ASHA at report 1")
    write_trial(tmp_path, 2, CONFIG, reports(0.5, math.nan), "failed", "diverged")
    write_trial(tmp_path, 3, CONFIG, reports(0.6, 0.6), None)
    write_trial(tmp_path, 4, CONFIG, [], None)
    saved = results.load(tmp_path).saved
    assert saved["steps_run"] == 190 + 19 + 38
    assert saved["steps_if_all_ran"] == 3 * 190
    assert saved["steps_saved"] == 171
    assert saved["share"] == pytest.approx(171 / 570)
    assert [saved[state] for state in ("finished", "stopped", "failed", "running", "interrupted")] == [1, 1, 1, 2, 0]


def test_a_damaged_or_repeating_result_file_keeps_every_whole_report(tmp_path: Path) -> None:
    write_frame(tmp_path)
    first, second, again = report(1, 0.5), report(2, math.inf), report(2, 0.75)
    trial = write_trial(tmp_path, 0, CONFIG, [])
    lines = [json.dumps(row) for row in (first, second)]
    (trial / "reports.jsonl").write_text("\n".join([*lines, "{half", json.dumps(again), '{"report": 3, "accu']))
    found = results.load(tmp_path)
    assert found.reports["accuracy"].tolist() == [0.5, 0.75]
    assert found.problems == ("results/trial_0000/reports.jsonl: line 3 is not a JSON mapping",)


def test_rays_own_files_are_never_read(tmp_path: Path) -> None:
    """Ray copies them without care: a driver killed meanwhile leaves them half written."""
    write_frame(tmp_path)
    trial = write_trial(tmp_path, 0, CONFIG, reports(0.5, 0.6))
    for name in ("params.json", "result.json"):
        (trial / name).write_text('{"tri')
    found = results.load(tmp_path)
    assert found.reports["accuracy"].tolist() == [0.5, 0.6] and found.problems == ()


def test_a_nan_report_gives_no_score_and_never_wins(tmp_path: Path) -> None:
    write_frame(tmp_path)
    write_trial(tmp_path, 0, CONFIG, reports(0.9, math.nan), "failed", "diverged: accuracy is NaN at report 2")
    write_trial(tmp_path, 1, CONFIG, reports(0.6), "finished")
    found = results.load(tmp_path)
    assert found.best is not None and found.best["number"] == 1
    assert found.trials.set_index("number")["score"].isna().tolist() == [False, True]


def test_a_young_search_loads(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"state": "running"}))
    (tmp_path / "results").mkdir()
    found = results.load(tmp_path)
    assert found.trials.empty and found.reports.empty and found.best is None
    assert found.saved["share"] == 0 and found.problems == ()


def test_damaged_files_are_named_and_the_others_kept(tmp_path: Path) -> None:
    write_frame(tmp_path, {"judge_by": "first"})
    write_trial(tmp_path, 0, CONFIG, reports(0.6, 0.8))
    (write_trial(tmp_path, 1, CONFIG, reports(0.7)) / "config.json").write_text("{")
    (tmp_path / "versions.json").write_text("[]")
    (tmp_path / "settings.yaml").write_text("a: [")
    found = results.load(tmp_path)
    assert found.trials["number"].tolist() == [0]
    assert found.trials["score"].tolist() == [pytest.approx(0.7)]
    places = [problem.split(":")[0] for problem in found.problems]
    assert places == ["summary.json", "settings.yaml", "results/trial_0001/config.json", "versions.json"]


def test_missing_files_of_trials_are_named(tmp_path: Path) -> None:
    write_frame(tmp_path, {"state": "done"})
    write_trial(tmp_path, 0, CONFIG, reports(0.6))
    (write_trial(tmp_path, 1, CONFIG, reports(0.7)) / "reports.jsonl").unlink()
    write_trial(tmp_path, 3, CONFIG, reports(0.7))
    problems = results.load(tmp_path).problems
    assert [problem.split(": ")[0] for problem in problems] == ["results/trial_0001/reports.jsonl", "results"]
    assert "no folder of trial 2 (1 missing in all)" in problems[1]
    (tmp_path / "results" / "trial_0003" / "config.json").unlink()
    assert "results/trial_0003/config.json: is missing" in " ".join(results.load(tmp_path).problems)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config.json", "trial", True),
        ("config.json", "trial", -1),
        ("config.json", "config", {"method": [1]}),
        ("config.json", "config", {"method": "kd", "gradient_accumulation": {}}),
        ("trial.json", "state", ["finished"]),
        ("trial.json", "reason", 3),
        ("trial.json", "time", math.inf),
    ],
)
def test_values_that_no_trial_writes_are_one_line_each(tmp_path: Path, name: str, key: str, value: object) -> None:
    write_frame(tmp_path)
    path = write_trial(tmp_path, 0, CONFIG, reports(0.6)) / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    problems = results.load(tmp_path).problems
    assert len(problems) == 1 and problems[0].startswith(f"results/trial_0000/{name}: {key}")


def test_a_damaged_confirmation_is_left_out(tmp_path: Path) -> None:
    write_frame(tmp_path)
    (tmp_path / "confirm").mkdir()
    (tmp_path / "confirm" / "summary.json").write_text(json.dumps({"metric": "accuracy", "winner": [1]}))
    found = results.load(tmp_path)
    assert found.confirmation == {} and any("summary.json: winner: " in problem for problem in found.problems)


def test_of_two_folders_of_one_trial_the_newer_counts(tmp_path: Path) -> None:
    write_frame(tmp_path)
    write_trial(tmp_path, 0, CONFIG, reports(0.5), "failed", "worker died", name="b_old")
    write_trial(tmp_path, 0, CONFIG, reports(0.6, 0.7), "finished", name="a_new")
    found = results.load(tmp_path)
    assert found.trials["folder"].tolist() == ["a_new"]
    assert found.reports["accuracy"].tolist() == [0.6, 0.7]
    assert "2 folders" in found.problems[0]


def test_hyperparameters_that_a_method_lacks_stay_empty(tmp_path: Path) -> None:
    write_frame(tmp_path)
    write_trial(tmp_path, 0, CONFIG, reports(0.6))
    write_trial(tmp_path, 1, configuration(random.Random(0)), reports(0.7))
    trials = results.load(tmp_path).trials.sort_values("number")
    assert trials["gamma_i"].isna().tolist() == [True, False]


def test_the_lowest_wins_where_the_search_minimises(tmp_path: Path) -> None:
    write_frame(tmp_path, {"mode": "min"})
    write_trial(tmp_path, 0, CONFIG, reports(0.9, 0.6))
    write_trial(tmp_path, 1, CONFIG, reports(0.5, 0.4))
    found = results.load(tmp_path)
    assert found.best is not None and (found.best["number"], found.best["best"]) == (1, 0.4)


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_what_is_no_search_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=name) as caught:
        results.load(tmp_path / name)
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


def test_the_standard_error_of_an_unknown_metric_is_unknown(tmp_path: Path) -> None:
    write_search(tmp_path / "a", trials=2, study=False, metric="accuracy", selection_examples=600)
    assert results.load(tmp_path / "a").standard_error is not None
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summary(metric="loss")))
    assert results.load(tmp_path / "a").standard_error is None


def test_reading_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, fsd_tune.report.html_report; sys.exit(bool({'torch', 'ray', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_of_an_earlier_version_is_read_and_reported(tmp_path: Path) -> None:
    """The folder was written by version 0.1."""
    folder = shutil.copytree(OLD_SEARCH, tmp_path / "search")
    found = results.load(folder)
    assert found.problems == () and found.trials["state"].value_counts().to_dict() == {
        "stopped": 4, "finished": 1, "failed": 1
    }  # fmt: skip
    assert found.best is not None and found.best["number"] == 1 and len(found.reports) == 18
    assert (found.summary.task, found.summary.memory.passes, found.summary.dev.examples) == ("sst2", 1, 872)
    page = html_report.write_report(folder).read_text()
    assert "all 6 trials were run" in page and "0.832" in page
