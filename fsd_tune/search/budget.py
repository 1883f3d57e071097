"""Decide when a search ends, and describe its end in a sentence."""

from collections.abc import Mapping
from typing import Any

from fsd_tune.search import grid
from fsd_tune.search.equal_methods import tried_once
from fsd_tune.search.trial_record import TrialRecord, final_score
from fsd_tune.settings.comparing import EQUAL
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.layout import TrialState


class Stall:
    """A count of the trials in a row that ended without a better finished score (`search.stop_after_stalled`).

    Args:
        limit: the number of such trials after which no new trial begins; None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._best = float("-inf")
        self._without_better = 0

    def ended(self, score: float | None) -> None:
        """Count a trial that has ended.

        Args:
            score: the score of the trial; None if it has not finished.
        """
        if score is not None and score > self._best:
            self._best = score
            self._without_better = 0
        else:
            self._without_better += 1

    @property
    def over(self) -> bool:
        """True if no new trial should begin."""
        return self._limit is not None and self._without_better >= self._limit


def stall(settings: Settings, past: Mapping[int, TrialRecord]) -> Stall:
    """Return the count after an earlier part of the search.

    Args:
        settings: the settings of the search.
        past: the earlier trials by number; running trials do not count.
    """
    count = Stall(settings.search.stop_after_stalled)
    for _, trial in sorted(past.items(), key=lambda item: (item[1].ended_at, item[0])):
        if trial.state != TrialState.RUNNING:
            count.ended(final_score(trial))
    return count


def planned(settings: Settings) -> int:
    """Return the number of trials that a search can have: `search.trials`, at most the points of its grid.

    Args:
        settings: the settings of the search.
    """
    trials = settings.search.trials
    return min(trials, grid.size(settings)) if settings.search.sampler == "grid" else trials


def notes(settings: Settings) -> list[str]:
    """Return notes for the user on `search.trials`: compared with the size of a grid, or with the number of methods.

    Args:
        settings: the settings of the search.
    """
    if settings.search.compare_methods == EQUAL:
        return _notes_on_methods(settings)
    if settings.search.sampler != "grid":
        return []
    points = grid.size(settings)
    trials = settings.search.trials
    if points > trials:
        size = f"more than {grid.MOST:,}" if points > grid.MOST else f"{points:,}"
        return [f"search.trials: {trials:,} of the grid's {size} points are run."]
    if points < trials:
        return [f"search.trials: {trials:,}, but the grid has {points:,} points, so the search runs {points:,} trials."]
    return []


def _notes_on_methods(settings: Settings) -> list[str]:
    trials, count = settings.search.trials, len(settings.methods)
    notes = [f"{name}: has one trial, because nothing of it is searched." for name in tried_once(settings)]
    if trials < count:
        notes.append(f"search.trials: {trials} for {count} methods, so some get none.")
    return notes


def ended_by(settings: Settings, begun: int, broken_off: int, stalled: bool) -> dict[str, Any]:
    """Return the reason why a search that was not interrupted ended, for `summary.json`.

    Args:
        settings: the settings of the search.
        begun: the number of trials that have begun, also in earlier parts of the search.
        broken_off: the number of them that have not ended; `resume` continues them.
        stalled: true if the rule of `search.stop_after_stalled` ended the search.

    Returns:
        {"budget": trials, grid, stop_after_stalled or time_budget, "not_run": number of trials that never began,
        "text": a sentence}.
    """
    search = settings.search
    trials = planned(settings)
    not_run = max(trials - begun, 0)
    parts = (f"{not_run} of {trials} not run" if not_run else "", f"{broken_off} interrupted" if broken_off else "")
    undone = ", ".join(filter(None, parts))
    if stalled and not_run:
        budget = "stop_after_stalled"
        text = f"stopped after {search.stop_after_stalled} trials without a better one: {undone}"
    elif undone:
        budget = "time_budget"
        text = f"stopped after the time budget of {search.time_budget}: {undone}"
    elif trials < search.trials:
        budget = "grid"
        text = f"the whole grid of {trials} points was run; {search.trials} trials were asked for"
    else:
        budget = "trials"
        text = f"all {trials} trials were run"
    return {"budget": budget, "not_run": not_run, "text": text}
