"""What a search would hand out at a moment: rules that choose one of its trials by what they have reported."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fsd_tune.settings.judging import judge


@dataclass
class Trial:
    """A trial of a replayed search.

    Attributes:
        row: the table's configuration.
        values: its reports, oldest first.
        finished: true after its last report.
    """

    row: int
    values: list[float] = field(default_factory=list)
    finished: bool = False


Rule = Callable[[Sequence[Trial]], int | None]
_Score = Callable[[list[float]], float]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _best(score: _Score, finished_only: bool = False) -> Rule:
    def rule(trials: Sequence[Trial]) -> int | None:
        scored = [
            (score(trial.values), -number)
            for number, trial in enumerate(trials)
            if trial.values and (trial.finished or not finished_only)
        ]
        finite = [(value, number) for value, number in scored if math.isfinite(value)]
        return trials[-max(finite)[1]].row if finite else None

    return rule


# The scopes of Ray's `ResultGrid.get_best_result` are over all trials, stopped and running ones among them.
SCOPES: dict[str, Rule] = {
    "last": _best(lambda values: values[-1]),
    "avg": _best(_mean),
    "all": _best(max),
    "last-5-avg": _best(lambda values: _mean(values[-5:])),
    "last-10-avg": _best(lambda values: _mean(values[-10:])),
}


def _finished_first(judge_by: str) -> Rule:
    finished = _best(lambda values: judge(values, judge_by), finished_only=True)
    return lambda trials: SCOPES["last"](trials) if finished(trials) is None else finished(trials)


def _few_finished(enough: int) -> Rule:
    by_finished = _finished_first("last")
    return lambda trials: (by_finished if sum(t.finished for t in trials) >= enough else SCOPES["last"])(trials)


# Ours: finished trials alone (their mean of the last three, or last report), and all trials while few have finished.
OWN: dict[str, Rule] = {
    "finished, mean of last 3": _finished_first("mean_of_last_3"),
    "finished, last": _finished_first("last"),
    "all until 3 finished": _few_finished(3),
    "all until 5 finished": _few_finished(5),
    "all until 10 finished": _few_finished(10),
    "all": SCOPES["last"],
}
