"""Tables and statistics of the paper's protocol, with scipy as the reference."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from fsd_tune.paper import page
from fsd_tune.paper.facts import SYSTEMS
from fsd_tune.paper.results import FILE, SystemScores, TaskResults, comparison_rows, read_results, table
from fsd_tune.report.intervals import right_tailed_p
from fsd_tune.storage.artifacts import write_json


def scores(values, **config):
    by_seed = {2001 + index: {"accuracy": value} for index, value in enumerate(values)}
    return SystemScores(config={"method": "kd", "alpha": 0.5} | config, search_score=0.7, trials=4, scores=by_seed)


VKD, RKD, FSD = [0.60, 0.62, 0.61, 0.64], [0.61, 0.64, 0.66, 0.63], [0.65, 0.66, 0.64, 0.68]


@pytest.fixture
def results():
    dev = {"vkd": scores(VKD), "rkd": scores(RKD), "fsd": scores(FSD), "fsd_il": scores([0.9, 0.9])}
    return TaskResults(
        task="rte", metrics=("accuracy",), small=True, seeds=4, teacher=0.7,
        systems={"dev": dev, "holdout": {"vkd": scores(VKD), "fsd": scores(VKD[:1])}},
    )  # fmt: skip


@pytest.mark.parametrize("shift", [-0.05, 0.0, 0.02, 0.2])
def test_p_is_that_of_scipy(shift):
    generator = np.random.default_rng(3)
    first, second = generator.normal(shift, 0.1, 6), generator.normal(0, 0.1, 6)
    expected = ttest_rel(first, second, alternative="greater").pvalue
    assert right_tailed_p(list(first), list(second)) == pytest.approx(expected, rel=1e-9)


def test_p_without_spread():
    assert [right_tailed_p([a, a], [1.0, 1.0]) for a in (2.0, 1.0, 0.0)] == [0.0, 0.5, 1.0]


def test_fsd_is_compared_with_the_best_baseline_on_common_seeds(results):
    found = results.compare("dev", "accuracy")
    assert (found.baseline, found.pairs) == ("rkd", 4)
    assert found.p == pytest.approx(ttest_rel(FSD, RKD, alternative="greater").pvalue)
    assert found.interval.estimate == pytest.approx(np.mean(FSD) - np.mean(RKD))
    assert results.compare("dev", "accuracy", "vkd").baseline == "vkd"
    few = results.compare("holdout", "accuracy")
    assert (few.baseline, few.pairs, few.p, few.interval) == ("vkd", 1, None, None)
    assert TaskResults("rte", ("accuracy",), False, 6, None).compare("dev", "accuracy") is None


def test_rows_of_comparisons(results):
    rows = comparison_rows(results)
    assert [(row["selection"], row["baseline"]) for row in rows] == [("dev", "RKD"), ("dev", "VKD"), ("holdout", "VKD")]
    assert rows[0]["paper_p"] == 0.002 and rows[1]["paper_p"] is None
    assert rows[0]["difference"] == pytest.approx(100 * (np.mean(FSD) - np.mean(RKD)))
    assert rows[0]["low"] < rows[0]["difference"] < rows[0]["high"]


def test_the_table_has_the_papers_numbers_and_ours(results):
    frame = table(results, "accuracy")
    rows: dict[Any, dict[Any, Any]] = {(row["system"], row["selection"]): row for row in frame.to_dict("records")}
    fsd = rows["FSD", "dev"]
    assert (fsd["paper_mean"], fsd["paper_deviation"], fsd["seeds"], fsd["trials"]) == (66.61, 1.01, 4, 4)
    assert fsd["mean"] == pytest.approx(100 * np.mean(FSD))
    assert fsd["deviation"] == pytest.approx(100 * np.std(FSD, ddof=1))
    assert rows["MiniLM", "dev"]["paper_mean"] == 61.49 and math.isnan(rows["MiniLM", "dev"]["mean"])
    assert rows["teacher", "holdout"]["mean"] == pytest.approx(70)
    assert math.isnan(rows["PKD", "holdout"]["mean"])
    assert {*frame["system"]} == {"teacher", "MiniLM", *SYSTEMS.values()}


def test_page_and_table_are_read_back_from_the_tasks(results, tmp_path):
    write_json(tmp_path / "rte" / FILE, results.as_json())
    assert list(read_results(tmp_path)) == [results]
    path = page.write_page(tmp_path)
    text = path.read_text()
    assert "66.61 (1.01)" in text and "65.75 (1.71)" in text
    assert "Not comparable with the paper" in text and "MiniLM" in text and "FSD_G" not in text
    frame = pd.read_csv(tmp_path / "paper.csv")
    assert len(frame) == 2 * (2 + len(SYSTEMS)) and set(frame["task"]) == {"rte"}
    lines = page.result_lines(results, tmp_path)
    assert str(path) in lines[-1]
    assert any("FSD − RKD" in line and "(paper 0.002)" in line for line in lines)


def test_a_folder_without_results_gives_none(tmp_path):
    assert list(read_results(tmp_path)) == []
