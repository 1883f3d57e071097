"""Searches on made-up learning curves: our searcher and our ASHA as Tune calls them, without Ray and training."""

import heapq
import itertools
import math
import random
from collections import Counter
from types import SimpleNamespace

from ray.tune.schedulers import TrialScheduler

from fsd_tune.search.asha import ResumableAsha
from fsd_tune.search.equal_methods import new_suggester
from fsd_tune.search.searcher import StudySearcher
from fsd_tune.search.study import SearchStudy
from fsd_tune.settings.comparing import EQUAL

REPORTS = 10
SPACE = """
space:
  alpha: {low: 0.1, high: 0.9}
  temperature: {low: 1.0, high: 8.0}
  beta: 1.0
  gamma_i: {low: 0.1, high: 10.0, log: true}
  gamma_l: {low: 0.1, high: 10.0, log: true}
  gamma_g: {low: 0.1, high: 10.0, log: true}
  gamma_m: 0.5
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
"""


class World:
    """A search whose trials learn as well as learning rate and alpha allow, with seed noise.

    Args:
        settings: of the search.
        better: points by which the methods are better than the others.
        workers: trials at the same time.
        past: trials of an earlier part.
        crashes: the method whose trials crash before their first report.
        earlier: trials of earlier searches to begin with.
    """

    def __init__(self, settings, better=None, workers=1, past=None, crashes=None, earlier=()):
        self.settings, self._better, self._workers, self._crashes = settings, better or {}, workers, crashes
        self.study = SearchStudy(settings, None, "world", past or {}, new_suggester(settings, earlier))
        self._searcher = StudySearcher(self.study, "accuracy", REPORTS, workers)
        methods = settings.methods if settings.search.compare_methods == EQUAL else ()
        self.asha = ResumableAsha("accuracy", REPORTS, 1, 3, past or {}, methods)
        self._queue, self._order = [], itertools.count()

    def play(self, trials):
        """Run so many trials to their ends; gives the trials of the study by number."""
        begun = 0
        while self._queue or begun < trials:
            while begun < trials and len(self._queue) < self._workers:
                self._start(f"t{begun}", self._queue[0][0] if self._queue else 0.0)
                begun += 1
            self._step(*heapq.heappop(self._queue))
        return self.study.trials

    def _start(self, name, now):
        suggestion = self._searcher.suggest(name)
        assert isinstance(suggestion, dict)
        trial = SimpleNamespace(trial_id=name, config=suggestion, should_recover=lambda: False)
        self.asha.on_trial_add(None, trial)
        self._wait(now, trial, len(self.study.trials[suggestion["trial"]].values) + 1)

    def _wait(self, now, trial, report):
        seconds = random.Random(f"speed {trial.config['trial']}").uniform(0.7, 1.3)
        heapq.heappush(self._queue, (now + seconds, next(self._order), trial, report))

    def _step(self, now, _, trial, report):
        name = trial.trial_id
        if trial.config["config"]["method"] == self._crashes:
            self.asha.on_trial_error(None, trial)
            self._searcher.on_trial_complete(name, error=True)
            return
        result = {"report": report, "accuracy": self._value(trial.config, report)}
        # The last report of a trial arrives with its end alone.
        stop = report < REPORTS and self.asha.on_trial_result(None, trial, result) == TrialScheduler.STOP
        if stop or report == REPORTS:
            self.asha.on_trial_complete(None, trial, result)
            self._searcher.on_trial_complete(name, result)
        else:
            self._searcher.on_trial_result(name, result)
            self._wait(now, trial, report + 1)

    def _value(self, suggestion, report):
        config, number = suggestion["config"], suggestion["trial"]
        end = 0.8 - 0.06 * (math.log10(config["learning_rate"]) + 3.7) ** 2 - 0.05 * (config["alpha"] - 0.4) ** 2
        noise = random.Random(f"seed {number}").gauss(0, 0.008) + random.Random(f"{number} {report}").gauss(0, 0.004)
        return 0.5 + (end - 0.5) * (1 - math.exp(-report / 2.5)) + noise + self._better.get(config["method"], 0) / 100


def reports_by_method(trials):
    """Reports of each method's trials."""
    spent: Counter[str] = Counter()
    for trial in trials.values():
        spent[trial.params["method"]] += len(trial.values)
    return spent


def winner(trials):
    """The method of the finished trial with the best last value."""
    finished = [trial for trial in trials.values() if trial.state == "finished"]
    return max(finished, key=lambda trial: trial.series()[-1]).params["method"]
