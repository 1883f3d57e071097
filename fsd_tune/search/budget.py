"""What ends a search before or at its last trial, and the sentence that says so."""

from collections.abc import Mapping
from typing import Any

from fsd_tune.search import grid
from fsd_tune.search.trial_record import TrialRecord, final_score
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.layout import TrialState


class Stall:
    """Counts the trials that have ended in a row without a better finished score (`search.stop_after_stalled`).

    Args:
        limit: the trials in a row after which no new one begins; None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._best = float("-inf")
        self._row = 0

    def ended(self, score: float | None) -> None:
        """Count a trial that has ended.

        Args:
            score: its score; None if it has not finished.
        """
        if score is not None and score > self._best:
            self._best = score
            self._row = 0
        else:
            self._row += 1

    @property
    def over(self) -> bool:
        """Whether no new trial is to begin."""
        return self._limit is not None and self._row >= self._limit


def stall(settings: Settings, past: Mapping[int, TrialRecord]) -> Stall:
    """Return the count of trials without a better one after an earlier part of the search.

    Args:
        settings: of the search.
        past: its trials by number; those that still run do not count.
    """
    count = Stall(settings.search.stop_after_stalled)
    for _, trial in sorted(past.items(), key=lambda item: (item[1].ended_at, item[0])):
        if trial.state != TrialState.RUNNING:
            count.ended(final_score(trial, settings.search.judge_by))
    return count


def planned(settings: Settings) -> int:
    """Return the number of trials that a search can have: `search.trials`, at most the points of its grid.

    Args:
        settings: the settings of the search.
    """
    asked = settings.search.trials
    return min(asked, grid.size(settings)) if settings.search.sampler == "grid" else asked


def notes(settings: Settings) -> list[str]:
    """Return notes for the user on the size of a grid compared with `search.trials`.

    Args:
        settings: the settings of the search.

    Returns:
        At most one line; none for other samplers, or if the grid has `search.trials` points.
    """
    if settings.search.sampler != "grid":
        return []
    points, asked = grid.size(settings), settings.search.trials
    if points > asked:
        many = f"more than {grid.MOST:,}" if points > grid.MOST else f"{points:,}"
        return [f"search.trials: {asked:,} of the grid's {many} points are run."]
    return (
        [f"search.trials: {asked:,}, but the grid has {points:,} points: the search ends there."]
        if points < asked
        else []
    )


def ended_by(settings: Settings, begun: int, broken_off: int, stalled: bool) -> dict[str, Any]:
    """Return what ended a search that ran to its end, for `summary.json`.

    Args:
        settings: of the search.
        begun: trials that have begun, ever.
        broken_off: those of them that have not ended; `resume` continues them.
        stalled: whether the rule of `search.stop_after_stalled` holds.

    Returns:
        {"budget": trials, grid, stop_after_stalled or time_budget, "not_run": trials that never began, "text": a
        sentence}
    """
    search, can = settings.search, planned(settings)
    left = max(can - begun, 0)
    parts = (f"{left} of {can} not run" if left else "", f"{broken_off} broken off" if broken_off else "")
    undone = ", ".join(filter(None, parts))
    if stalled and left:
        row = search.stop_after_stalled
        budget, text = "stop_after_stalled", f"stopped after {row} trials without a better one: {undone}"
    elif undone:
        budget, text = "time_budget", f"stopped after the time budget of {search.time_budget}: {undone}"
    elif can < search.trials:
        budget, text = "grid", f"the whole grid of {can} points was run; {search.trials} trials were asked for"
    else:
        budget, text = "trials", f"all {can} trials were run"
    return {"budget": budget, "not_run": left, "text": text}
