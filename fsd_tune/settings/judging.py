"""The score of a trial from its evaluations."""

import math
from collections.abc import Sequence

# How scores are made. Searches of earlier versions that used the mean of the last three evaluations are still read.
JUDGE_BY = "last"
JUDGES = ("mean_of_last_3", JUDGE_BY)


def judge(values: Sequence[float], judge_by: str) -> float:
    """Return the score of a trial.

    Args:
        values: the selection metric of each evaluation, oldest first.
        judge_by: `mean_of_last_3` (of all evaluations if there are fewer) or `last`.

    Returns:
        The score; NaN if there is no evaluation yet, or an evaluation that counts is NaN.
    """
    assert judge_by in JUDGES, judge_by
    judged = values[-1:] if judge_by == "last" else values[-3:]
    return math.fsum(judged) / len(judged) if judged else math.nan
