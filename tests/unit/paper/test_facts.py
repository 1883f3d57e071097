"""The paper's numbers and ranges agree with each other and with the metrics and methods of this package."""

import math

import pytest

from fsd_tune.data.tasks import TASKS
from fsd_tune.paper import facts
from fsd_tune.paper.protocol import PaperRun, search_settings, teacher_config
from fsd_tune.settings.domains import Choice, Range
from fsd_tune.settings.shipped import shipped_spaces

PRINTED = [(task, metric) for task in TASKS for metric in TASKS[task].metrics if facts.printed(task, metric)]


def test_every_task_has_a_printed_row():
    assert {task for task, _ in PRINTED} == set(TASKS)
    # The accuracy of CoLA is the only metric that the paper does not print.
    assert [(t, m) for t in TASKS for m in TASKS[t].metrics if (t, m) not in PRINTED] == [("cola", "accuracy")]


@pytest.mark.parametrize(("task", "metric"), PRINTED)
def test_a_printed_row_is_complete(task, metric):
    row = facts.printed(task, metric)
    assert set(row) == {"teacher", "minilm", *facts.IN_TABLES}
    assert all(30 < number.mean < 95 for number in row.values())
    assert all((number.deviation is None) == (system == "teacher") for system, number in row.items())
    p = facts.printed_p(task, metric)
    best = max(row[system].mean for system in row if system not in ("teacher", "fsd"))
    assert p is not None and 0 < p < 1
    # A right-tailed p is below one half exactly if FSD has the larger mean; CoLA and QNLI have not.
    assert (p < 0.5) == (row["fsd"].mean > best)


@pytest.mark.parametrize(
    ("task", "metric", "tolerance"),
    [
        ("stsb", "pearson", 5e-4),
        ("stsb", "spearman", 2e-3),
        ("qnli", "accuracy", 1e-3),
        ("cola", "matthews_correlation", 5e-3),
    ],
)
def test_printed_p_values_have_five_degrees_of_freedom(task, metric, tolerance):
    """As a t-test paired by seed; one of two samples (ten degrees) would give .001 and .006 for STS-B."""
    from scipy.stats import t

    row = facts.printed(task, metric)
    best = max((row[system] for system in row if system not in ("teacher", "fsd")), key=lambda number: number.mean)
    error = math.hypot(row["fsd"].deviation or 0, best.deviation or 0) / math.sqrt(facts.SEEDS)
    assert float(t.sf((row["fsd"].mean - best.mean) / error, 5)) == pytest.approx(
        facts.printed_p(task, metric), abs=tolerance
    )


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("system", facts.SYSTEMS)
def test_every_system_has_settings_for_every_task(system, task, tmp_path):
    assert f"paper/{system}" in shipped_spaces()
    run = PaperRun(task, tmp_path, trials=7)
    settings = search_settings(run, system, held_out=False)
    assert settings.search.trials == 7 and settings.published is True and settings.search.select_on == "dev"
    for overrides in facts.range_overrides(system, task):
        assert overrides.removeprefix("space.") in settings.space
    small = search_settings(PaperRun(task, tmp_path, small=True), system, held_out=True)
    assert (small.student.layers, small.search.trials, small.data.max_length) == (3, 4, 64)
    assert small.search.select_on != "dev" and small.space.keys() == settings.space.keys()


def test_ranges_of_a_task(tmp_path):
    def space(system, task):
        return search_settings(PaperRun(task, tmp_path), system, held_out=False).space

    assert space("fsd_g", "rte")["gamma_m"] == space("fsd_g", "wnli")["gamma_m"] == Range(low=6e-7, high=5e-6, log=True)
    assert space("fsd_g", "mnli")["beta"] == Range(low=6e-7, high=5e-6, log=True)
    assert space("fsd_g", "sst2")["beta"] == space("fsd_g", "qqp")["beta"] == Range(low=6e-8, high=5e-7, log=True)
    assert space("fsd", "qqp")["gamma_m"] == Range(low=6e-3, high=5e-2, log=True)
    assert space("fsd", "cola")["gamma_m"] == Range(low=0.1, high=0.9, step=0.1)
    assert space("fsd_i", "stsb")["beta"] == Choice(choice=(3.0, 4.0, 5.0, 6.0, 10.0))
    assert space("fsd", "stsb")["gamma_l"] == Choice(choice=(0.1, 1.0, 3.0, 4.0, 5.0, 6.0, 10.0))
    assert space("fsd_l", "rte")["beta"] == Choice(choice=(3.0, 4.0, 5.0, 6.0))


def test_teachers(tmp_path):
    rates = {task: teacher_config(PaperRun(task, tmp_path), "m", False).config["learning_rate"] for task in TASKS}
    assert rates == {task: 5e-5 if task in ("stsb", "wnli") else 2e-5 for task in TASKS}
    config = teacher_config(PaperRun("rte", tmp_path), "m", True)
    assert (config.max_length, config.config["batch_size"], config.config["epochs"], config.holdout) == (
        128,
        32,
        3,
        0.1,
    )
    assert config.output == tmp_path / "rte" / "teacher-holdout"
