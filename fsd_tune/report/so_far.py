"""What a search had found for what it had spent."""

import math

import pandas as pd

from fsd_tune.report.results import Results


def so_far(results: Results) -> pd.DataFrame:
    """The best finished score after each report of a search, from the first finished trial on.

    Returns:
        `steps` (student optimiser steps of all trials so far, stopped ones too) and `best`.
    """
    sign = -1.0 if results.lower_is_better else 1.0
    scores = {row["number"]: row["score"] for row in results.trials.query("state == 'finished'").to_dict("records")}
    last = results.reports.groupby("trial")["report"].max().to_dict() if len(results.reports) else {}
    steps: dict[int, float] = {}
    best, rows = -math.inf, []
    ordered = (
        results.reports.sort_values("timestamp", kind="stable") if "timestamp" in results.reports else results.reports
    )
    for row in ordered.to_dict("records"):
        trial = row["trial"]
        steps[trial] = max(steps.get(trial, 0.0), float(row.get("step") or 0))
        if trial in scores and row["report"] == last[trial]:
            best = max(best, sign * scores[trial])
        if math.isfinite(best):
            rows.append({"steps": sum(steps.values()), "best": sign * best})
    return pd.DataFrame(rows, columns=["steps", "best"])
