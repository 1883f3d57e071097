"""How a trial's evaluations become one score (`search.judge_by`)."""

import math
from collections.abc import Sequence

JUDGES = ("mean_of_last_3", "last")


def judge(values: Sequence[float], judge_by: str) -> float:
    """One score from a trial's evaluations, oldest first.

    Args:
        values: the selection metric at each report.
        judge_by: `mean_of_last_3` (of fewer where there are fewer) or `last`.

    Returns:
        The score; NaN when there is no value yet or a judged value is NaN.
    """
    assert judge_by in JUDGES, judge_by
    judged = values[-1:] if judge_by == "last" else values[-3:]
    return math.fsum(judged) / len(judged) if judged else math.nan
