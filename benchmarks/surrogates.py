"""Samplers that model reports by configuration and share of the training: tried on the choosing half of the tables."""

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from fsd_tune.search.samplers import Suggester, start_up_trials
from fsd_tune.search.trial_record import TrialRecord

_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)


class Surrogate(Suggester):
    """Suggest the best of many candidates by a model of all reports. Subclasses implement `worth`."""

    def suggest(
        self, number: int, trials: Mapping[int, TrialRecord], waiting: Iterable[TrialRecord] = ()
    ) -> TrialRecord | None:
        rows = [
            (*self._place(trial.params), math.log(report), value)
            for _, trial in sorted(trials.items())
            for report, value in sorted(trial.values.items())
            if math.isfinite(value)
        ]
        if number < max(start_up_trials(self.settings.search.trials), len(self._first)) or len(rows) < 4:
            return super().suggest(number, trials, waiting)
        known = np.asarray(rows)
        rng = np.random.default_rng(self.seed(number))
        tried = np.asarray([self._place(trial.params) for trial in trials.values()])
        seen = [trial for trial in trials.values() if trial.values and math.isfinite(trial.series()[-1])]
        best = [self._place(t.params) for t in sorted(seen, key=lambda trial: -trial.series()[-1])[:5]]
        near = [np.asarray(best)[rng.integers(len(best), size=60)] + rng.normal(0, s, (60, tried.shape[1]))
                for s in (0.03, 0.1, 0.25)]  # fmt: skip
        candidates = np.clip(np.concatenate([rng.random((500, tried.shape[1])), *near]), 0, 1)
        chosen = candidates[self.worth(known, tried, candidates, rng).argmax()]
        ranges = self.distributions.items()
        return TrialRecord({n: float(r.low + x * (r.high - r.low)) for (n, r), x in zip(ranges, chosen, strict=True)})

    def worth(
        self, known: NDArray[Any], tried: NDArray[Any], candidates: NDArray[Any], rng: np.random.Generator
    ) -> NDArray[Any]:
        """Return what each candidate is worth trying.

        Args:
            known: of each report the point, the logarithm of the report, and the value.
            tried: the points of all trials, running ones among them.
            candidates: points of the unit cube.
            rng: the source of chance.
        """
        raise NotImplementedError

    def _place(self, params: Mapping[str, Any]) -> list[float]:
        return [(params[name] - found.low) / (found.high - found.low) for name, found in self.distributions.items()]


class GaussianProcess(Surrogate):
    """Expected improvement at the end of the training, by a Gaussian process of points and shares."""

    _kernel: Any = None
    _fitted = 0

    def worth(
        self, known: NDArray[Any], tried: NDArray[Any], candidates: NDArray[Any], rng: np.random.Generator
    ) -> NDArray[Any]:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        end = known[:, -2].max()
        values = _squashed(known[:, -1])
        kernel = self._kernel
        if kernel is None:
            kernel = ConstantKernel(1, (0.1, 30)) * Matern(np.full(tried.shape[1] + 1, 0.7), (0.05, 20), nu=2.5)
            kernel += WhiteKernel(0.1, (1e-3, 1))
        # The parameters of the kernel are fitted again after a few reports.
        again = self._kernel is None or len(known) >= self._fitted + 8
        model = GaussianProcessRegressor(kernel, optimizer="fmin_l_bfgs_b" if again else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(known[:, :-1], values)
        if again:
            self._kernel, self._fitted = model.kernel_, len(known)
        expected = model.predict(_at(tried, end))
        # Each trial counts as if it had ended as expected, so that no two workers get nearly the same suggestion.
        held = np.concatenate([known[:, :-1], _at(tried, end)])
        model = GaussianProcessRegressor(self._kernel, optimizer=None)
        model.fit(held, np.concatenate([values, expected]))
        mean, deviation = model.predict(_at(candidates, end), return_std=True)
        deviation = np.sqrt(np.maximum(deviation**2, 1e-10))
        z = (mean - expected.max()) / deviation
        return np.asarray(deviation * (z * norm.cdf(z) + norm.pdf(z)))


class Quantiles(Surrogate):
    """A draw from quantile regressions of each trial's last report, as CQR (Salinas et al., 2023, arXiv 2305.17595).

    The conformal correction of the quantiles is left out.
    """

    def worth(
        self, known: NDArray[Any], tried: NDArray[Any], candidates: NDArray[Any], rng: np.random.Generator
    ) -> NDArray[Any]:
        from sklearn.ensemble import GradientBoostingRegressor

        same = (known[1:, :-2] == known[:-1, :-2]).all(axis=1)
        last = known[np.append(~same, True)]
        levels = rng.integers(len(_QUANTILES), size=len(candidates))
        drawn = np.empty(len(candidates))
        for index, quantile in enumerate(_QUANTILES):
            model = GradientBoostingRegressor(
                loss="quantile", alpha=quantile, n_estimators=50, max_depth=3, min_samples_leaf=2,
                random_state=int(rng.integers(2**31)),
            )  # fmt: skip
            model.fit(last[:, :-2], last[:, -1])
            mine = levels == index
            drawn[mine] = model.predict(candidates[mine])
        return drawn


def _at(points: NDArray[Any], end: float) -> NDArray[Any]:
    return np.asarray(np.c_[points, np.full(len(points), end)])


def _squashed(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in units of the better half's spread, those far below the median drawn nearer."""
    median = np.median(values)
    spread = np.sqrt(((values[values >= median] - median) ** 2).mean()) or 1.0
    scaled = (values - median) / spread
    return np.asarray(np.where(scaled < -2, -2 - np.log1p(np.maximum(-2 - scaled, 0)), scaled))
