import base64
import itertools
import json
import math
import random
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from fsd_tune.report import html_report
from fsd_tune.report.charts import charts
from fsd_tune.report.charts import search as search_charts
from fsd_tune.report.charts import space as space_charts
from fsd_tune.report.charts.base import Chart, guarded
from fsd_tune.report.importances import importances
from fsd_tune.settings import loader
from fsd_tune.settings.methods import METHODS, TERMS
from fsd_tune.storage.known_trials import study_of
from tests.helpers import result_folders
from tests.helpers.result_folders import (
    configuration,
    study_trial,
    summary,
    write_frame,
    write_search,
    write_study,
    write_trial,
)
from tests.helpers.result_folders import report as one_report

MARKUP = '<script>alert(1)</script><img src=x onerror="alert(2)">'


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_search(tmp_path_factory.mktemp("search") / "R")
    html_report.write_report(folder)
    return folder


class Page(HTMLParser):
    """The page's tags, and its text outside scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent and data.split():
            self.text += " ".join(data.split()) + " "


def drawn(folder: Path) -> dict[str, Chart]:
    return charts(html_report.load(folder))


def traces(chart: Chart) -> Any:
    assert chart.figure is not None, chart.caption
    return chart.figure.data


def test_the_leaderboard_ranks_finished_trials(search: Path) -> None:
    table = html_report.leaderboard(html_report.load(search))
    finished = table[table["state"] == "finished"]
    assert finished["rank"].tolist() == list(range(1, len(finished) + 1))
    assert finished["score"].is_monotonic_decreasing
    assert table["rank"].isna().sum() == 24 - len(finished) > 0
    stored = pd.read_csv(search / "leaderboard.csv")
    assert stored["trial"].tolist() == table["trial"].tolist()
    assert stored["learning_rate"].tolist() == table["learning_rate"].tolist()


def test_the_page_states_the_result_and_its_cost(search: Path) -> None:
    results = html_report.load(search)
    assert results.best is not None and results.standard_error is not None
    text = Page(search / "report.html").text
    score = float(results.best["score"])
    assert f"{score:.3f} ± {results.standard_error:.3f}" in text
    for words in (
        "Teacher 0.832 teachers/sst2",
        f"Student minus teacher {score - 0.832:+.3f}".replace("-", "−"),
        "Trials 24 of 24",
        f"Steps saved by ASHA {results.saved['share']:.0%}",
        "Teacher passes paid 1",
        "Wall time 6 min 53 s",
        "Training examples 1,000",
        "diverged: accuracy is NaN at report 2",
        "41 of 1,000 sentences were cut",
        "ab12cd34ef56",
        html_report.distill_command(results, results.best),
    ):
        assert words in text, words


def test_a_search_over_shapes_has_their_columns_and_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, str, int | None]] = [(2, "copy", None), (4, "random", 192), (4, "random", None)]
    numbers = itertools.count()
    drawn_before = result_folders.configuration

    def drawn_now(random_state: random.Random) -> dict[str, Any]:
        layers, start, width = shapes[next(numbers) % 3]
        return drawn_before(random_state, layers=layers, start=start, hidden_size=width)

    distributions = {
        "layers": optuna.distributions.CategoricalDistribution([2, 4]),
        "start": optuna.distributions.CategoricalDistribution(["copy", "random"]),
        "hidden_size": optuna.distributions.CategoricalDistribution([None, 192]),
    }
    monkeypatch.setattr(result_folders, "configuration", drawn_now)
    monkeypatch.setattr(result_folders, "DISTRIBUTIONS", result_folders.DISTRIBUTIONS | distributions)
    student = {"layers": [4, 2], "start": ["copy", "random"], "hidden_size": [None, 192]}
    folder = write_search(tmp_path / "R", trials=24, student=student)
    text = Page(html_report.write_report(folder)).text
    assert "2, 4 layers" in re.sub(r"\s+", " ", text)
    results = html_report.load(folder)
    assert results.hyperparameters[:4] == ["method", "layers", "start", "hidden_size"]
    rows = results.trials.sort_values("number")[["layers", "start", "hidden_size"]].to_dict("records")
    assert [tuple(row.values()) for row in rows] == shapes * 8
    assert {type(row["hidden_size"]) for row in rows} == {int, type(None)}
    assert all(chart.figure is not None for chart in drawn(folder).values())
    # Two thirds of the trials started at random, half of them with the teacher's width.
    measured = {row.name: row for row in importances(results).rows}
    compared = importances(results).trials
    assert measured["layers"].trials == compared > measured["hidden_size"].trials >= compared // 2
    words = {}
    for row in results.trials.to_dict("records"):
        command = shlex.split(html_report.distill_command(results, pd.Series(row)))
        given = dict(zip(command[3::2], command[4::2], strict=True))
        words[row["number"]] = [given[f"--student-{name}"] for name in ("layers", "start", "hidden-size")]
    assert [words[number] for number in (0, 1, 2)] == [
        ["2", "copy", "null"], ["4", "random", "192"], ["4", "random", "null"]
    ]  # fmt: skip


def test_nothing_is_left_beside_the_page(search: Path) -> None:
    assert sorted(path.name for path in search.iterdir()) == sorted(
        [
            "command.txt",
            "leaderboard.csv",
            "report.html",
            "results",
            "settings.yaml",
            "study.db",
            "summary.json",
            "versions.json",
        ]
    )


def test_the_command_gives_the_configuration_back_exactly(search: Path) -> None:
    results = html_report.load(search)
    assert results.best is not None
    words = shlex.split(html_report.distill_command(results, results.best))
    assert words[:3] == ["fsd-tune", "distill", str(search / "settings.yaml")]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert (given["--task"], given["--teacher"], given["--data"]) == ("sst2", "teachers/sst2", "glue")
    known = {flag for flag, _, _ in loader.flags()}
    for name in results.hyperparameters:
        flag = f"--{name.replace('_', '-')}"
        assert flag in known
        value = results.best[name]
        assert type(value)(given[flag]) == value


def test_every_chart_is_drawn_and_captioned(search: Path) -> None:
    found = drawn(search)
    assert list(found) == [
        "history", "cost", "curves", "timeline", "importances", "parallel", "slices", "losses", "similarity", "clusters"
    ]  # fmt: skip
    for chart in found.values():
        assert chart.figure is not None and chart.figure.data, chart.caption
        assert len(chart.caption) > 80
    results = html_report.load(search)
    finished = results.trials[results.trials["state"] == "finished"]
    assert sorted(traces(found["history"])[0].y) == sorted(finished["score"])
    assert len(traces(found["curves"])) == (results.trials["state"] != "failed").sum()
    assert len(traces(found["parallel"])) == len(finished)
    terms = {trace.name for trace in traces(found["losses"])}
    assert {"task", "KD", "L_I (intra)", "L_L (local)", "L_G (global)", "L_G: memory"} == terms
    bars = traces(found["timeline"])
    assert {worker for trace in bars for worker in trace.y} == {"1: worker", "2: worker"}
    assert sorted(trial for trace in bars for trial in trace.customdata) == list(range(24))
    assert {trace.name for trace in bars} == set(results.trials["state"])
    assert len(traces(found["slices"])) == 7, "one picture a hyperparameter that varies"
    assert traces(found["cost"])[0].y[-1] == finished["score"].max()


def test_a_worker_is_busy_from_a_trials_begin_to_its_last_report(tmp_path: Path) -> None:
    write_frame(tmp_path)
    for number, pid, begun in ((0, 1, 0.0), (1, 2, 60.0), (2, 1, 300.0)):
        config = configuration(random.Random(number))
        rows = [one_report(i, 0.6, timestamp=begun + 60 * i, time_this_iter_s=60.0, pid=pid) for i in (1, 2, 3)]
        write_trial(tmp_path, number, config, rows)
    (bars,) = traces(drawn(tmp_path)["timeline"])
    assert list(zip(bars.y, bars.base, bars.x, strict=True)) == [
        ("1: worker", 0.0, 3.0), ("2: worker", 1.0, 3.0), ("1: worker", 5.0, 3.0)
    ]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_each_term_of_a_method_has_a_colour_of_its_own(tmp_path: Path, method: str) -> None:
    write_frame(tmp_path)
    terms = METHODS[method].all_terms
    row = {"report": 1, "step": 10, "accuracy": 0.6, "score": 0.6} | {f"loss/{name}": 1.0 for name in terms}
    write_trial(tmp_path, 0, configuration(random.Random(0), method=method), [row])
    lines = traces(drawn(tmp_path)["losses"])
    assert [line.name for line in lines] == [TERMS[name].label for name in terms]
    assert len({line.line.color for line in lines}) == len(terms)


def test_the_headline_has_the_confirmed_mean_with_its_interval_and_the_baselines() -> None:
    fresh = {"mean": 0.8, "deviation": 0.02, "scores": {"6": 0.78, "7": 0.8, "8": 0.82}, "failed": []}
    one = {"label": "trial 3", "role": "winner", "search_score": 0.82, "remark": "", "config": {}, "fresh": fresh}
    other = one | {"label": "kd", "role": "baseline", "remark": "untuned"}
    other["fresh"] = {"mean": 0.77, "deviation": None, "scores": {"6": 0.77}, "failed": [7, 8]}
    made = {"configurations": [one, other, {"label": "trial 4", "role": "candidate"}]}
    facts = {fact.what: (fact.figure, fact.remark) for fact in html_report._confirmed(made, 3)}
    # 0.8 ± t(0.975, 2) 0.02 / sqrt(3), t = 4.3027
    assert facts["Confirmed mean"] == ("0.800", "95% interval 0.750 to 0.850, 3 fresh seeds")
    assert facts["Baseline kd"] == ("0.770", "untuned") and len(facts) == 2


def test_charts_show_what_was_measured_where_the_study_differs(tmp_path: Path) -> None:
    write_frame(tmp_path)
    records = []
    for number, (values, state) in enumerate([([0.6] * 10, "finished"), ([0.5], "stopped"), ([0.7] * 10, "finished")]):
        config = configuration(random.Random(number))
        rows = [one_report(index, value) for index, value in enumerate(values, start=1)]
        write_trial(tmp_path, number, config, rows, state)
        # The sampler was told that the stopped trial would have reached 0.99.
        told = [0.99] * 3 if state == "stopped" else values
        records.append(study_trial(config, told, "finished"))
    write_study(tmp_path, records, "sst2-fsd_ilg")
    found = drawn(tmp_path)
    assert list(traces(found["history"])[0].y) == pytest.approx([0.6, 0.7])
    curves = {trace.name: list(trace.y) for trace in traces(found["curves"])}
    assert curves["stopped"] == [0.5]


def test_charts_that_cannot_be_drawn_say_why(tmp_path: Path) -> None:
    write_frame(tmp_path, {"memory": None, "layer_cka": None})
    found = drawn(tmp_path)
    assert all(chart.figure is None for chart in found.values())
    assert "no study.db" in found["history"].caption
    assert "no trial has finished" in found["losses"].caption
    assert "no teacher memory" in found["clusters"].caption

    write_study(tmp_path, [], "another")
    assert "no study `sst2-fsd_ilg`; it has `another`" in drawn(tmp_path)["history"].caption
    (tmp_path / "study.db").write_bytes(b"no database " * 500)
    assert "study.db cannot be read" in drawn(tmp_path)["curves"].caption
    page = Page(html_report.write_report(tmp_path))
    assert "study.db cannot be read" in page.text
    assert "No trial has started yet." in page.text


def test_few_trials_or_nothing_varied(tmp_path: Path) -> None:
    write_frame(tmp_path)
    config = {"method": "kd", "alpha": 0.5, "temperature": 5.0, "batch_size": 16}
    rows = [one_report(index, 0.7) for index in range(1, 11)]
    fixed = {"alpha": optuna.distributions.FloatDistribution(0.5, 0.5)}
    records = []
    for number in range(9):
        write_trial(tmp_path, number, config, rows)
        records.append(optuna.trial.create_trial(value=0.7, params={"alpha": 0.5}, distributions=fixed))
    write_study(tmp_path, records, "sst2-fsd_ilg")
    found = drawn(tmp_path)
    assert "varies no hyperparameter" in found["importances"].caption
    assert found["history"].figure is not None and found["parallel"].figure is not None

    (tmp_path / "results" / "trial_0000" / "trial.json").unlink()
    for number in (1, 2, 3):
        shutil.rmtree(tmp_path / "results" / f"trial_{number:04d}")
    (tmp_path / "study.db").unlink()
    write_study(tmp_path, records[:1], "sst2-fsd_ilg")
    found = drawn(tmp_path)
    assert "at least 8 of them" in found["importances"].caption
    assert found["curves"].figure is not None


def test_the_study_is_never_written(search: Path) -> None:
    before = (search / "study.db").read_bytes(), (search / "study.db").stat().st_mtime_ns
    drawn(search)
    assert ((search / "study.db").read_bytes(), (search / "study.db").stat().st_mtime_ns) == before


def test_a_study_whose_writer_was_killed_is_read_to_its_last_commit(tmp_path: Path, search: Path) -> None:
    folder = tmp_path / "R"
    shutil.copytree(search, folder)
    # A cache of one page forces uncommitted pages into the file; then the writer dies.
    code = """
import os, sqlite3, sys
base = sqlite3.connect(sys.argv[1])
base.execute("PRAGMA cache_size = 1")
base.execute("DELETE FROM trial_intermediate_values")
base.execute("DELETE FROM trial_params")
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code, str(folder / "study.db")], check=False).returncode == 9
    assert (folder / "study.db-journal").stat().st_size > 0
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True).execute("SELECT * FROM trials").fetchall()
    chart = drawn(folder)["parallel"]
    assert chart.figure is not None, chart.caption
    assert (folder / "study.db-journal").stat().st_size > 0


def test_many_trials_share_traces_and_the_best_stand_out(tmp_path: Path) -> None:
    """A trace for each trial would take a browser seconds; what is drawn stays what was measured."""
    results = html_report.load(write_search(tmp_path / "R", trials=400, study=False))
    reports = results.reports.groupby("trial")["accuracy"].apply(list).to_dict()
    known = []
    for row in results.trials.sort_values("number").to_dict("records"):
        config = {name: row[name] for name in results.hyperparameters}
        known.append(study_trial(config, reports[row["number"]], row["state"]))
        known[-1].number = row["number"]
    study = study_of(known)
    assert results.best is not None
    best = results.best["number"]

    drawn = search_charts.curves(results, study).figure
    assert drawn is not None and len(drawn.data) < 8
    states = dict(zip(results.trials["number"], results.trials["state"], strict=True))
    curves: dict[int, list[float]] = {}
    for trace in drawn.data:
        for number, report, value in zip(trace.customdata, trace.x, trace.y, strict=True):
            if report is not None:
                assert len(curves.setdefault(number, [])) == report - 1
                curves[number].append(value)
                assert trace.name == (f"best: trial {best}" if number == best else states[number])
    assert curves == {number: values for number, values in reports.items() if states[number] != "failed"}
    assert list(drawn.data[-1].y) == reports[best]

    chart = space_charts.parallel(results, study)
    assert chart.figure is not None and len(chart.figure.data) == 100 < list(states.values()).count("finished")
    assert chart.figure.data[-1].y[0] == max(line.y[0] for line in chart.figure.data) == 1.0
    assert chart.figure.data[0].y[0] == 0.0, "the worst is there, too"
    assert "one of 100 finished trials, the best 50 and" in chart.caption


def test_markup_from_files_stays_text(tmp_path: Path) -> None:
    name = f"search {MARKUP}"
    folder = write_search(
        tmp_path / "R",
        name=name,
        task=MARKUP,
        machine=MARKUP,
        notes=[MARKUP],
        state=MARKUP,
        teacher={"name": MARKUP, "score": 0.8},
        precision=MARKUP,
    )
    (folder / "command.txt").write_text(f"fsd-tune search --data {shlex.quote(MARKUP)}")
    (folder / "versions.json").write_text(json.dumps({MARKUP: MARKUP}))
    (folder / "settings.yaml").write_text(f"method: '{MARKUP}'\n")
    failed = one_report(1, math.nan, **{MARKUP: 1.0, f"loss/{MARKUP}": 1.0})
    config = {"method": MARKUP, "alpha": MARKUP}
    write_trial(folder, 24, config, [failed], "failed", MARKUP, name="trial <img src=x onerror=alert(3)>")
    page = Page(html_report.write_report(folder))
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert "trial <img src=x onerror=alert(3)>" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [attributes for _, attributes in page.tags if any(key.startswith("on") for key in attributes)]
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert len(scripts) == len(drawn(folder)) + 2  # each figure's data, plotly.js and the page's own
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<script[^>]*>alert\(1\)", html)


def test_the_page_names_no_address_to_fetch_from(search: Path) -> None:
    page = Page(search / "report.html")
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            assert not re.match(r"\s*(https?:)?//", attributes.get(key) or ""), (tag, attributes)
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies and str(policies[0]).startswith("default-src 'none';")
    assert not re.search(r"@import|url\(", (Path(html_report.__file__).parent / "templates" / "report.css").read_text())


def test_a_young_search_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"state": "running"}))
    text = Page(html_report.write_report(tmp_path)).text
    assert "No trial has finished yet." in text and tmp_path.name in text


def test_other_metrics_and_large_splits(tmp_path: Path) -> None:
    write_search(tmp_path, trials=2, study=False)
    changed = summary(metric="matthews_correlation", selection_examples=40_430, teacher=None, memory=None)
    (tmp_path / "summary.json").write_text(json.dumps(changed))
    for trial in (tmp_path / "results").iterdir():
        rows = [one_report(1, 0.0, matthews_correlation=-0.12344)]
        (trial / "reports.jsonl").write_text(json.dumps(rows[0]) + "\n")
        (trial / "trial.json").write_text(json.dumps({"state": "finished"}))
    text = Page(html_report.write_report(tmp_path)).text
    assert "Best student, matthews correlation −0.1234 ± 0.0049 " in text
    assert "Teacher 0." not in text


def mixed_search(folder: Path, trials: int = 12) -> Path:
    """Write a search of kd and fsd_g in which all trials of fsd_g, and most of kd, were stopped at report 1."""
    write_frame(folder)
    records = []
    for number in range(trials):
        config = {"method": "kd", "alpha": (number * 7 % trials) / trials, "temperature": 3.0, "batch_size": 16}
        if number % 2:
            config |= {"method": "fsd_g", "gamma_g": 10.0 ** (number / trials)}
        # alpha alone decides.
        values = [0.5 + 0.3 * float(str(config["alpha"]))] * (10 if number % 6 == 0 else 1)
        state = "finished" if len(values) == 10 else "stopped"
        write_trial(folder, number, config, [one_report(i, v) for i, v in enumerate(values, start=1)], state)
        records.append(study_trial(config, values, state))
    write_study(folder, records, "sst2-fsd_ilg")
    return folder


def test_slices_do_without_a_hyperparameter_that_only_stopped_trials_have(tmp_path: Path) -> None:
    chart = drawn(mixed_search(tmp_path, 18))["slices"]
    (dots,) = traces(chart)
    assert len(dots.x) == 3 and chart.figure is not None and chart.figure.layout.xaxis.title.text == "alpha"
    assert "fewer than two values of it finished: gamma_g" in chart.caption


def test_importances_compare_stopped_trials_too_at_one_report(tmp_path: Path) -> None:
    results = html_report.load(mixed_search(tmp_path))
    measured = importances(results)
    assert (measured.report, measured.trials) == (1, 12)
    alpha, *others = measured.rows
    assert alpha.name == "alpha" and alpha.share > 0.99 and alpha.stands_out
    assert {row.name for row in others} == {"method"}, "6 trials have gamma_g: too few"
    caption = charts(results)["importances"].caption
    assert "12 finished and stopped trials, compared at report 1 of 10" in caption
    assert "Above it: alpha." in caption and "Do not fix the others yet: below 64 trials" in caption


def test_noise_seldom_stands_out_and_gives_no_advice(tmp_path: Path) -> None:
    random_state, alarms = random.Random(3), 0
    write_frame(tmp_path)
    for number in range(12):
        write_trial(tmp_path, number, configuration(random_state), [one_report(1, random_state.random())], "stopped")
    results = html_report.load(tmp_path)
    for _ in range(100):
        values = [random_state.random() for _ in range(12)]
        alarms += any(row.stands_out for row in importances(with_reports(results, values)).rows)
    # 5 are expected; 14 or more are so with a probability below 0.001.
    assert alarms < 14


def with_reports(results: html_report.Results, values: list[float]) -> html_report.Results:
    return replace(results, reports=results.reports.assign(accuracy=values))


def test_few_trials_have_no_importances(tmp_path: Path) -> None:
    caption = drawn(mixed_search(tmp_path, 6))["importances"].caption
    assert "needs at least 8 of them" in caption and "There are 6." in caption and "fix" not in caption


def test_a_fault_in_a_chart_is_said_in_the_users_words(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Chart:
        raise ZeroDivisionError("float division by zero")

    chart = guarded("slices", "Slices", fail)
    assert chart.figure is None and "ZeroDivisionError" not in chart.caption and "other charts" in chart.caption
    assert "ZeroDivisionError: float division by zero" in caplog.text


def test_charts_are_drawn_once_for_each_results(search: Path) -> None:
    results = html_report.load(search)
    assert charts(results) is charts(results) is not charts(html_report.load(search))


def test_the_page_shows_names_in_the_place_of_absolute_paths(tmp_path: Path) -> None:
    folder = write_search(
        tmp_path / "R", 4, study=False, teacher={"name": "/home/me/teachers/sst2-large", "score": 0.8},
        memory=summary()["memory"] | {"path": "/scratch/memory/memory-ab12"},
    )  # fmt: skip
    text = Page(html_report.write_report(folder)).text
    assert "Teacher 0.800 sst2-large" in text and "memory memory-ab12" in text and "Made by fsd_tune from R ," in text
    assert "/scratch" not in text
    commands = [part for part in text.split() if part.startswith("/home/me")]
    assert commands == [], "the command that trains again names the teacher as the user gave it"


def test_the_pictures_of_an_analysis_are_its_own_files(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "R", 4, study=False)
    (folder / "analysis").mkdir()
    pairs = {kind: {"pairs": 1200} for kind in ("intra", "local")}
    analysis = {
        "sample": {"examples": 64, "of": 872, "seed": 0}, "gaps": [pairs], "student": {"trial": 99},
        "pair": {"teacher_layer": 5, "student_layer": 2}, "tsne": {"centroids": "K-means"},
    }  # fmt: skip
    (folder / "analysis" / "analysis.json").write_text(json.dumps(analysis))
    for name in ("cka", "gaps", "map"):
        (folder / "analysis" / f"{name}.png").write_bytes(b"PNG of " + name.encode())
    path = html_report.write_report(folder)
    page, html = Page(path), path.read_text(encoding="utf-8")
    sources = [str(attributes["src"]) for tag, attributes in page.tags if tag == "img"]
    assert [base64.b64decode(source.split(",")[1]) for source in sources] == [
        b"PNG of cka", b"PNG of gaps", b"PNG of map"
    ]  # fmt: skip
    assert "analysis/tsne.png is missing" in page.text and "This is trial 99" in page.text
    assert 'id="figure-similarity"' in html and 'id="similarity"' not in html
