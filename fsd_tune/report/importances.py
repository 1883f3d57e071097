"""The importance of each hyperparameter, measured on trials at the same point of training, with its noise level.

A finished trial and one that ASHA stopped have no common score. All trials that reached report r, finished or stopped,
have one: their value at r. So importances come from one report (or from the scores of the finished trials, if there
are enough of them), never from a mixture.

The importance of a hyperparameter is the share of the variance of the trials' ranks that the hyperparameter alone
explains: R² of a parabola in its own rank, or of the means of its values if there are few of them. Ranks make it
independent of logarithmic scales and of outliers. Unlike the shares of fANOVA or PED-ANOVA, which add up to 1 however
little there is to explain, R² has a known distribution under pure noise (an F test). In a simulation with 7
hyperparameters and scores of pure noise, PED-ANOVA gave one of them more than 0.75 in 1 of 20 searches of 32 trials.
When one hyperparameter explained 97% of the scores, it exceeded this level in 1 of 6 searches. R² finds it in 9 of 10
searches of 12 trials.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fsd_tune.report.results import Results
from fsd_tune.settings.shapes import RANDOM
from fsd_tune.storage.layout import TrialState

# Fewer trials than this are not drawn. With 8 trials and 7 hyperparameters pure noise explains 85% of the variance
# in 1 of 20 searches, so that nothing short of a perfect order stands out.
FEWEST = 8
# From this many trials on, a short bar is evidence, too: a hyperparameter that explains a quarter of the variance then
# exceeds the noise of 7 hyperparameters with a probability of 0.9 (power of the F test).
ENOUGH = 64
# A report with at least this many trials is preferred to an earlier one with more. A hyperparameter that explains
# half of the variance exceeds the noise there with a probability of 0.98.
_PREFERRED = 32
# The share of searches of pure noise that have at least one bar above its noise level.
_FALSE_ALARMS = 0.05
# A hyperparameter with at most this many values is measured by the mean rank of each value.
_FEW_VALUES = 4


@dataclass(frozen=True)
class Importance:
    """The importance of one hyperparameter.

    Attributes:
        name: the name of the hyperparameter.
        share: the share of the variance of ranks that it explains, 0..1.
        noise: the share that pure noise reaches, for any hyperparameter of the search, in 1 of 20 searches.
        trials: the number of trials that have it.
    """

    name: str
    share: float
    noise: float
    trials: int

    @property
    def stands_out(self) -> bool:
        """True if the hyperparameter explains more than noise would."""
        return self.share > self.noise


@dataclass(frozen=True)
class Importances:
    """The importances of a search.

    Attributes:
        rows: one for each hyperparameter that at least `FEWEST` trials have, with different values; largest first.
        report: the report that the trials are compared at; None for the scores of finished trials.
        trials: the number of trials compared.
    """

    rows: tuple[Importance, ...]
    report: int | None
    trials: int


def importances(results: Results) -> Importances:
    """Return the importances of a search, from the trials of one report.

    The values compared are the scores of the finished trials if there are at least 32, else the values at the latest
    report that at least 32 trials reached, else those that most trials have, the latest among equals. An early report
    has more trials, and they vary more, because ASHA keeps similar trials to a late rung.

    Args:
        results: the results of a search.
    """
    report, values = _compared(results)
    trials = results.trials.set_index("number").loc[values.index]
    columns = {name: _column(trials, name).dropna() for name in results.hyperparameters}
    used = {name: column for name, column in columns.items() if len(column) >= FEWEST and column.nunique() > 1}
    rows = [_importance(name, column, values[column.index], len(used)) for name, column in used.items()]
    return Importances(tuple(sorted(rows, key=lambda row: -row.share)), report, len(values))


def _column(trials: pd.DataFrame, name: str) -> "pd.Series[Any]":
    """Return the values of a hyperparameter, missing where a trial does not use it.

    The width of a student that starts at random can be None, which stands for the teacher's.
    """
    column = trials[name]
    if name != "hidden_size":
        return column
    uses = trials["start"] == RANDOM if "start" in trials else column == column
    return column.map(str).where(uses)


def _compared(results: Results) -> tuple[int | None, "pd.Series[float]"]:
    """Return the report that trials are compared at, and their values by trial number."""
    choices: list[tuple[int | None, pd.Series[float]]] = []
    if results.metric in results.reports:
        reports = results.reports.assign(value=pd.to_numeric(results.reports[results.metric], errors="coerce"))
        finite = reports[np.isfinite(reports["value"]) & reports["trial"].isin(results.trials["number"])]
        choices = [(int(report), rows.set_index("trial")["value"]) for report, rows in finite.groupby("report")]
    finished = results.trials[(results.trials["state"] == TrialState.FINISHED) & results.trials["score"].notna()]
    choices.append((None, finished.set_index("number")["score"]))
    latest_first = choices[::-1]
    preferred = [choice for choice in latest_first if len(choice[1]) >= _PREFERRED]
    return preferred[0] if preferred else max(latest_first, key=lambda choice: len(choice[1]))


def _importance(name: str, column: "pd.Series[Any]", values: "pd.Series[float]", hyperparameters: int) -> Importance:
    from scipy.special import fdtri  # scipy.stats takes a second to import.

    ranks = values.rank().to_numpy(float)
    design = _design(column)
    freedom, rest = design.shape[1] - 1, len(ranks) - design.shape[1]
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if rest < 1 or not total:
        return Importance(name, 0.0, 1.0, len(ranks))
    fitted = design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
    share = 1.0 - float(((ranks - fitted) ** 2).sum()) / total
    # Each test is made strict enough that all together alarm falsely in 1 of 20 searches (Šidák, 1967).
    quantile = fdtri(freedom, rest, (1 - _FALSE_ALARMS) ** (1 / hyperparameters))
    noise = float(quantile * freedom / (quantile * freedom + rest))
    return Importance(name, max(share, 0.0), noise, len(ranks))


def _design(column: "pd.Series[Any]") -> NDArray[np.float64]:
    """Return the regressors of one hyperparameter, float64 [trials, columns], a constant first.

    The others are the centred rank and its square. If there are few values, or they are not numbers, the others are
    indicators of all values but one.
    """
    intercept = np.ones(len(column))
    if column.nunique() > _FEW_VALUES and pd.api.types.is_numeric_dtype(column.infer_objects()):
        rank = column.rank().to_numpy(float)
        centred = (rank - rank.mean()) / len(rank)
        return np.stack([intercept, centred, centred**2], axis=1)
    codes = pd.factorize(column.astype(str))[0]
    indicators = [codes == code for code in range(1, int(codes.max()) + 1)]
    return np.stack([intercept, *(indicator.astype(float) for indicator in indicators)], axis=1)
