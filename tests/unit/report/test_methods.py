"""What a search of several methods spent on each and found with it: in lines, in JSON, on the pages."""

import json

import pandas as pd
import pytest
import yaml

from fsd_tune.report import compare_page, html_report, summary
from fsd_tune.report.compare import compare, comparison_document, comparison_lines
from fsd_tune.report.methods import method_rows
from fsd_tune.report.results import load
from tests.helpers.result_folders import report, write_frame, write_search, write_trial

# Method, values and state of each trial; a report takes 1.96 seconds.
TRIALS = [
    ("kd", [0.5, 0.6, 0.7], "finished"),
    ("fsd_il", [0.5, 0.8], "stopped"),
    ("kd", [0.5, 0.6, 0.75], "finished"),
    ("kd", [0.5], "failed"),
    ("fsd_il", [0.5, 0.6, 0.72], "finished"),
    ("fsd_il", [0.5], None),
]


@pytest.fixture
def write(tmp_path):
    """Gives the folder of a search of kd, fsd_il and fsd_g, of which fsd_g has no trial."""

    def folder(**search):
        write_frame(tmp_path / "R", {"trials": 6, "judge_by": "last", "reports": 3})
        path = tmp_path / "R" / "settings.yaml"
        settings = yaml.safe_load(path.read_text())
        settings |= {"method": {"choice": ["kd", "fsd_il", "fsd_g"]}, "search": {"trials": 6, **search}}
        path.write_text(yaml.safe_dump(settings))
        for number, (method, values, state) in enumerate(TRIALS):
            reports = [report(index, value) for index, value in enumerate(values, start=1)]
            write_trial(tmp_path / "R", number, {"method": method, "alpha": 0.5}, reports, state)
        return tmp_path / "R"

    return folder


def test_each_method_has_its_budget_and_its_best(write):
    kd, fsd_il, fsd_g = method_rows(load(write()))
    assert (kd.method, kd.best, kd.best_trial, kd.trials, kd.finished, kd.reports) == ("kd", 0.75, 2, 3, 2, 7)
    assert (fsd_il.method, fsd_il.best, fsd_il.best_trial, fsd_il.trials, fsd_il.finished) == ("fsd_il", 0.72, 4, 3, 1)
    assert fsd_il.reports == 6 and fsd_il.share_of_reports == pytest.approx(6 / 13)
    assert kd.seconds == pytest.approx(7 * 1.96) and kd.share_of_time == pytest.approx(7 / 13)
    assert (fsd_g.method, fsd_g.best, fsd_g.trials, fsd_g.share_of_time) == ("fsd_g", None, 0, 0.0)


def test_a_search_of_one_method_says_nothing_of_methods(tmp_path):
    results = load(write_search(tmp_path / "R", trials=4))
    assert method_rows(results) == [] and summary.summary_document(results)["methods"] == []
    assert not any(line.startswith("  methods") for line in summary.summary_lines(results))
    assert "method_rank" not in html_report.leaderboard(results)
    assert "<h2>Methods</h2>" not in html_report.write_report(results).read_text()


def test_the_lines_and_the_document_say_who_got_how_much(write):
    results = load(write(compare_methods="equal"))
    lines = summary.summary_lines(results)
    first = lines.index("  methods         equal reports for each") + 1
    assert [line.strip() for line in lines[first : first + 3]] == [
        "kd      accuracy 0.7500, best of 2 finished of 3 trials; 7 reports (54%), 54% of the time",
        "fsd_il  accuracy 0.7200, best of 1 finished of 3 trials; 6 reports (46%), 46% of the time",
        "fsd_g   none of 0 trials finished; 0 reports (0%), 0% of the time",
    ]
    document = json.loads(json.dumps(summary.summary_document(results), allow_nan=False))
    assert [(row["method"], row["best"], row["reports"]) for row in document["methods"]] == [
        ("kd", 0.75, 7), ("fsd_il", 0.72, 6), ("fsd_g", None, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"compare_methods": "equal"}, "with about the same number of reports"),
        ({"compare_methods": "best_overall"}, "do not read their best scores as a comparison"),
        ({}, "do not read their best scores as a comparison"),  # an earlier version
    ],
)
def test_the_page_says_how_the_methods_compare(write, search, said):
    folder = write(**search)
    page = html_report.write_report(load(folder)).read_text()
    assert "<h2>Methods</h2>" in page and said in page
    stored = pd.read_csv(folder / "leaderboard.csv").set_index("trial")
    assert stored["rank"].dropna().to_dict() == {2: 1, 4: 2, 0: 3}
    assert stored["method_rank"].dropna().to_dict() == {2: 1, 4: 1, 0: 2}


def test_compare_shows_the_methods_of_each_search(write, tmp_path):
    compared = compare([write(compare_methods="equal"), write_search(tmp_path / "one", trials=4)], anyway=True)
    lines = comparison_lines(compared)
    rows = lines[lines.index("methods of one search:") + 2 :]
    assert [row.split(")")[1].split()[:6] for row in rows] == [
        ["kd", "0.7500", "3", "2", "7", "0.5385"],
        ["fsd_il", "0.7200", "3", "1", "6", "0.4615"],
        ["fsd_g", "-", "0", "0", "0", "0.0000"],
    ]
    assert [row["method"] for row in comparison_document(compared)["methods"]] == ["kd", "fsd_il", "fsd_g"]
    json.dumps(comparison_document(compared), allow_nan=False)
    assert "Methods of one search" in compare_page.write_comparison(compared, tmp_path / "out").read_text()
