"""The front of a search: its members against a slow reference, and the one that is chosen."""

import dataclasses
import random

import pytest
import yaml

from fsd_tune.report import front_table, html_report, summary
from fsd_tune.report.compare import compare, comparison_document, comparison_lines
from fsd_tune.report.compare_page import write_comparison
from fsd_tune.report.members import chosen_trial, front_costs, front_of
from fsd_tune.report.results import load
from fsd_tune.settings.objectives import Within
from tests.helpers.result_folders import shapes, write_front, write_search

COSTS = {(2, None): 3.0, (3, None): 4.5, (6, None): 9.0, (2, 192): 1.0, (3, 192): 1.5, (6, 192): 3.0}
TEACHER = 0.832  # of `result_folders.summary`
# number: layers, width, score, state
TRIALS = [
    (6, None, 0.825, "finished"),
    (3, None, 0.823, "finished"),
    (3, None, 0.80, "finished"),
    (2, None, 0.78, "finished"),
    (2, 192, 0.70, "finished"),
    (6, 192, 0.79, "finished"),
    (3, 192, 0.90, "stopped"),
    (3, 192, 0.69, "finished"),
    (6, None, 0.825, "finished"),
]


@pytest.fixture
def folder(tmp_path):
    return write_front(tmp_path / "R", TRIALS, COSTS, {"objectives": ["score", "latency_ms"]})


def test_members_are_those_that_no_other_beats(tmp_path):
    state = random.Random(0)
    for seed in range(20):
        trials = [(*state.choice(list(COSTS)), round(state.uniform(0.7, 0.8), 2), "finished") for _ in range(15)]
        objectives = ["score", "latency_ms", "parameters"][: 2 + seed % 2]
        results = load(write_front(tmp_path / str(seed), trials, COSTS, {"objectives": objectives}))
        rows = results.trials[["number", "score", *objectives[1:]]].to_dict("records")
        expected = set()
        for row in rows:
            better = [
                other
                for other in rows
                if other["score"] >= row["score"]
                and all(other[cost] <= row[cost] for cost in objectives[1:])
                and (any(other[name] != row[name] for name in objectives) or other["number"] < row["number"])
            ]
            if not better:
                expected.add(row["number"])
        front = front_of(results)
        assert front is not None and {member.number for member in front.members} == expected
        latencies = [member.cost.latency_ms or 0.0 for member in front.members]
        assert latencies == sorted(latencies)
        assert len(front.others) == len(rows) - len(expected)


@pytest.mark.parametrize(
    ("pick", "number"),
    [
        ("best", 0),
        ("fastest", 4),
        (Within(within=1.0), 1),  # 0.823 is 0.9 points below, at half the time of 0.825
        (Within(within=0.8), 0),
        (Within(within=0.1), 0),  # none: the best
        # Scaled to the ends (0.70, 1 ms) and (0.825, 9 ms), trial 5 is at 0.72 + 0.75 and trial 1 at 0.984 + 0.5625.
        ("knee", 1),
    ],
)
def test_what_is_chosen(folder, pick, number):
    results = load(folder)
    chosen = chosen_trial(results, pick)
    assert chosen is not None and chosen["number"] == number
    assert results.best is not None and results.best["number"] == 0
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    settings["search"]["pick"] = {"within": pick.within} if isinstance(pick, Within) else pick
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    again = load(folder)
    chosen = chosen_trial(again)
    assert chosen is not None and chosen["number"] == number
    assert summary.summary_document(again)["best"]["trial"] == number
    front = front_of(again)
    assert front is not None and front.is_fallback == (pick == Within(within=0.1))


def test_the_smallest_within_a_point_is_named(folder):
    front = front_of(load(folder))
    assert front is not None and front.smallest is not None and front.smallest.number == 1
    assert front.smallest.loses == pytest.approx(100 * (TEACHER - 0.823))
    assert "is trial 1: 3 layers, 3.3 MB, 0.9 points below it." in front_table.smallest_text(front)
    none = dataclasses.replace(front, smallest=None)
    assert "No student is within 1 point of the teacher; the nearest, trial 0 (6 layers), is 0.7" in (
        front_table.smallest_text(none)
    )


def test_costs_of_a_front():
    known = ("latency_ms", "parameters", "size_mb", "flops")
    assert front_costs(["score", "size_mb", "latency_ms"], {}, known) == ("size_mb", "latency_ms")
    assert front_costs(["score"], {"size_mb": 3}, known) == ("size_mb",)
    assert front_costs(["score"], {}, known) == ("latency_ms",)
    assert front_costs(["score"], {}, known[1:]) == ("parameters",), "latency was not measured"


def test_searches_without_several_shapes_have_no_front(tmp_path):
    one = write_front(tmp_path / "A", [(3, None, 0.8, "finished")], {(3, None): 4.0})
    for folder in (one, write_search(tmp_path / "B"), write_front(tmp_path / "C", TRIALS[6:7], COSTS)):
        results = load(folder)
        assert front_of(results) is None and front_table.front_lines(results) == []
        assert summary.summary_document(results)["front"] is None
        html_report.write_report(results)
    columns = load(tmp_path / "B").trials.columns
    assert not {"shape", "latency_ms", "parameters"} & set(columns), "nothing was measured"
    assert load(one).trials["latency_ms"].tolist() == [4.0]


def test_costs_are_columns_of_all_trials(folder):
    trials = load(folder).trials.set_index("number")
    for number, (layers, hidden_size, _, _) in enumerate(TRIALS):
        cost = next(
            one for one in shapes(COSTS)["students"] if (one["layers"], one["hidden_size"]) == (layers, hidden_size)
        )
        row = trials.loc[number]
        assert [row[name] for name in ("latency_ms", "parameters", "size_mb", "flops")] == [
            cost[name] for name in ("latency_ms", "parameters", "size_mb", "flops")
        ]
    assert trials.loc[5, "shape"] == "6 layers, 192 wide" and trials.loc[0, "shape"] == "6 layers"
    assert "latency_ms" not in load(folder).hyperparameters
    html_report.write_report(load(folder))
    assert "6 layers, 192 wide" in (folder / "leaderboard.csv").read_text()


def test_report_and_summary_show_the_front(folder):
    results = load(folder)
    page = html_report.write_report(results).read_text()
    for text in (
        "Which student fits",
        "trial-0001_3-layers",
        "trial-0004_2-layers-192-wide",
        "EPYC, 2 cores",
        "best/ holds trial 0, 6 layers (it has the highest score).",
        "The smallest within 1 point",
    ):
        assert text in page, text
    assert "trial-0002" not in page, "beaten by trial 1"
    lines = "\n".join(summary.summary_lines(results))
    assert "* 6 layers, trial 0" in lines and "latency: onnxruntime on cpu, 1 thread, batch 1, 23 tokens" in lines
    member = summary.summary_document(results)["front"]["members"][0]
    assert (member["trial"], member["latency_ms"], member["times_as_fast"]) == (4, 1.0, 9.0)
    assert member["loses"] == pytest.approx(13.2)


def test_the_report_shows_size_and_speed_of_student_and_teacher(tmp_path):
    model = {"parameters": 123_456, "size_mb": 0.5, "flops": 7_000_000, "p50_ms": 1.25, "p90_ms": 1.5, "spread": 0.1}
    setting = {"runtime": "torch", "threads": 1, "batch": 1, "length": 23, "device": "cpu"}
    models = {"machine": "EPYC", "setting": setting, "models": {"student": model, "teacher": model}, "notes": ["busy"]}
    page = html_report.write_report(write_search(tmp_path / "R", models=models)).read_text()
    for text in ("Size and speed", "123,456", "1.25", "torch on cpu, 1 thread, batch 1, 23 tokens; EPYC", "busy"):
        assert text in page, text


def test_fronts_side_by_side(folder, tmp_path):
    other = write_front(
        tmp_path / "S", TRIALS[1:3], COSTS, {"limits": {"latency_ms": 5}}, name="S",
        shapes=shapes(COSTS, machine="another machine"),
    )  # fmt: skip
    compared = compare([folder, other])
    rows = compared.fronts().to_dict("records")
    assert [(row["search"], row["trial"]) for row in rows if row["search"] == "S"] == [("S", 0)]
    assert len(comparison_document(compared)["fronts"]) == len(rows) == 5
    text = "\n".join(comparison_lines(compared))
    assert "latency of S: onnxruntime on cpu, 1 thread, batch 1, 23 tokens; another machine" in text
    page = write_comparison(compared, tmp_path / "C").read_text()
    assert "Their latencies cannot be compared" in page and "6 layers, 192 wide" in page
    assert (
        "Their latencies cannot be compared"
        not in write_comparison(compare([folder, folder]), tmp_path / "D").read_text()
    )
    assert "front" not in comparison_lines(compare([write_search(tmp_path / "E"), write_search(tmp_path / "F")]))
