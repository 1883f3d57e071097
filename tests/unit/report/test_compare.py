"""Searches side by side, from folders that are written by hand."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from fsd_tune.errors import InputError
from fsd_tune.report import compare_page
from fsd_tune.report.compare import compare, comparison_document, comparison_lines, wandb_view_steps
from fsd_tune.report.results import load
from tests.helpers.result_folders import write_search


@pytest.fixture
def two(tmp_path):
    return [write_search(tmp_path / "A", trials=24), write_search(tmp_path / "B", trials=12, name="<b>B</b>")]


def test_the_table_is_what_the_searches_hold(two):
    compared = compare(two)
    table = compared.table().set_index("search")
    for name, folder in zip(compared.names, two, strict=True):
        results, row = load(folder), table.loc[name]
        finished = results.trials[results.trials["state"] == "finished"]
        assert row["best"] == finished["score"].max() and row["median"] == np.median(finished["score"])
        assert row["trials"] == len(results.trials) and row["steps"] == results.trials["steps"].sum()
        assert results.best is not None and row["learning_rate"] == results.best["learning_rate"]
    assert [line.split()[0] for line in comparison_lines(compared)[-2:]] == list(compared.names)
    assert [row["search"] for row in comparison_document(compared)["searches"]] == list(compared.names)
    json.dumps(comparison_document(compared))


def test_best_so_far_against_a_slow_reference(two):
    for folder in two:
        results = load(folder)
        found = results.best_so_far()
        states = results.trials.set_index("number")["state"].to_dict()
        scores = results.trials.set_index("number")["score"].to_dict()
        rows = sorted(results.reports.to_dict("records"), key=lambda row: row["timestamp"])
        expected = []
        for end in range(1, len(rows) + 1):
            spent = sum(
                max(row["step"] for row in rows[:end] if row["trial"] == trial)
                for trial in {row["trial"] for row in rows[:end]}
            )
            whole = [
                trial
                for trial, state in states.items()
                if state == "finished"
                and sum(row["trial"] == trial for row in rows[:end]) == sum(row["trial"] == trial for row in rows)
            ]
            if whole:
                expected.append((spent, max(scores[trial] for trial in whole)))
        assert list(found.itertuples(index=False, name=None)) == expected
        assert found["best"].iloc[-1] == results.trials["score"][results.trials["state"] == "finished"].max()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": "mnli"}, "task mnli, but"),
        ({"metric": "matthews"}, "metric matthews, but"),
        ({"select_on": {"holdout": 0.1}}, "selection split"),
        ({"judge_by": "last"}, "score last, but"),
    ],
)
def test_what_cannot_be_compared_is_refused_unless_told(tmp_path, changes, expected):
    folders = [write_search(tmp_path / "A", trials=4), write_search(tmp_path / "B", trials=4, **changes)]
    with pytest.raises(InputError, match=expected):
        compare(folders)
    assert expected in "".join(compare(folders, anyway=True).remarks)


def test_problems_are_named_together(tmp_path, two):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        compare([two[0], tmp_path / "empty", tmp_path / "none"])
    assert len(caught.value.problems) == 2
    with pytest.raises(InputError, match="at least two"):
        compare(two[:1])


def test_two_of_one_name_are_told_apart(tmp_path):
    folders = [write_search(tmp_path / part / "R", trials=4, name="R") for part in "ab"]
    names = compare(folders).names
    assert len(set(names)) == 2 and all(name.startswith("R (") for name in names)


def test_page_table_and_picture(two, tmp_path):
    path = compare_page.write_comparison(compare(two), tmp_path / "out")
    page = path.read_text(encoding="utf-8")
    body = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "<b>B</b>" not in body and "&lt;b&gt;B&lt;/b&gt;" in body, "names are escaped"
    assert page.count('type="application/json"') == 2 and "default-src 'none'" in page
    assert body.count('src="data:image/png;base64,') == 1
    assert "Not drawn" not in body
    assert len(pd.read_csv(tmp_path / "out" / "compare.csv")) == 2
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def track(folder, **settings):
    path = folder / "settings.yaml"
    described = yaml.safe_load(path.read_text())
    described["wandb"] = {"mode": "offline", "project": "glue", "entity": None} | settings
    path.write_text(yaml.safe_dump(described))


def test_the_steps_to_a_view_name_project_and_groups(tmp_path):
    folders = [write_search(tmp_path / name, 6, study=False, name=name, group=f"{name}-12ab") for name in "ab"]
    sources = [str(folder) for folder in folders]
    with pytest.raises(InputError) as caught:
        wandb_view_steps(sources, compare(folders))
    assert len(caught.value.problems) == 2 and "was not tracked" in caught.value.problems[0]
    for folder in folders:
        track(folder)
    steps = "\n".join(wandb_view_steps(sources, compare(folders)))
    assert "project glue:" in steps and "a-12ab or b-12ab" in steps and "`accuracy`" in steps
    track(folders[1], project="other", entity="me")
    with pytest.raises(InputError, match="glue, me/other"):
        wandb_view_steps(sources, compare(folders))
