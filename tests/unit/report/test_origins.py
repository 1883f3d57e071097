"""Which trials of a search come from earlier ones: in the summary, in JSON, on the page and in the leaderboard."""

import json

import pandas as pd
import pytest

from fsd_tune.report import html_report, origins, summary
from fsd_tune.report.results import load
from tests.helpers.result_folders import write_search


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A search whose trials 1 and 2 come from one earlier search, and whose best comes from another."""
    path = write_search(tmp_path_factory.mktemp("warm") / "R", trials=12, study=False)
    best = load(path).best
    assert best is not None
    for number, origin in ((1, "cola trial 7"), (2, "cola trial 0"), (int(best["number"]), "a trial 2 trial 3")):
        file = path / "results" / f"trial_{number:04d}" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"origin": origin}))
    return path


def test_the_summary_names_the_searches(folder):
    results = load(folder)
    said = origins.remark(results)
    assert said.startswith("3 of 12 trials have their configurations from earlier searches: ")
    assert "2 from cola" in said and "1 from a trial 2" in said
    assert said.endswith(" The best configuration comes from a trial 2 trial 3.")
    assert f"  warm start      {said}" in summary.summary_lines(results)
    document = summary.summary_document(results)
    assert document["warm_start"] == {"cola": 2, "a trial 2": 1} and document["best"]["origin"] == "a trial 2 trial 3"


def test_the_page_and_the_leaderboard_name_each_trial(folder):
    page = html_report.write_report(folder).read_text()
    assert page.count(">cola trial ") == 2 and '<th scope="col">from</th>' in page
    rows = pd.read_csv(folder / "leaderboard.csv").set_index("trial")
    assert rows.loc[1, "origin"] == "cola trial 7" and rows["origin"].notna().sum() == 3


def test_a_search_without_earlier_ones_says_nothing(tmp_path):
    results = load(write_search(tmp_path / "R", trials=4, study=False))
    assert origins.remark(results) == "" and summary.summary_document(results)["warm_start"] == {}
    assert not any("warm start" in line for line in summary.summary_lines(results))
    assert '<th scope="col">from</th>' not in html_report.write_report(results).read_text()
