"""Models of reports by configuration and share of the training."""

import numpy as np
import pytest

from benchmarks import surrogates
from fsd_tune.search.trial_record import TrialRecord

SPACE = """
method: kd
space: {alpha: {low: 0, high: 1}, temperature: {low: 1, high: 11}, warmup_ratio: {low: 0, high: 0.4}}
search: {trials: 60}
"""


def quality(params):
    return -((params["alpha"] - 0.3) ** 2) - (params["temperature"] / 10 - 0.8) ** 2 - params["warmup_ratio"] ** 2


@pytest.mark.parametrize("model", [surrogates.GaussianProcess, surrogates.Quantiles])
def test_suggestions_lie_where_trials_did_well(model, settings_from_yaml):
    suggester = model(settings_from_yaml(SPACE))
    past: dict[int, TrialRecord] = {}
    for number in range(16):
        point = suggester.start_point(number)
        end = quality(point)
        past[number] = TrialRecord(point, "finished", {1: end - 0.5, 2: end - 0.1, 3: end})
    past[16] = TrialRecord(past[0].params, "running", {})
    asked = [suggester.suggest(number, past).params for number in range(17, 23)]
    assert len({params["alpha"] for params in asked}) == 6
    known = [quality(trial.params) for trial in past.values()]
    assert np.mean([quality(params) for params in asked]) > np.quantile(known, 0.75)
