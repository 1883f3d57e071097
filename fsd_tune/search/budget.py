"""The number of trials of a search, and a sentence on its end."""

from typing import Any

from fsd_tune.search import grid
from fsd_tune.search.end_rules import EndRule
from fsd_tune.search.equal_methods import tried_once
from fsd_tune.settings.comparing import EQUAL
from fsd_tune.settings.loader import Settings


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


def ended_by(settings: Settings, begun: int, broken_off: int, rule: EndRule | None) -> dict[str, Any]:
    """Return the reason why a search that was not interrupted ended, for `summary.json`.

    Args:
        settings: the settings of the search.
        begun: the number of trials that have begun, also in earlier parts of the search.
        broken_off: the number of them that have not ended; `resume` continues them.
        rule: the rule that ended the search; None if none did.

    Returns:
        {"budget": trials, grid, time_budget or the rule's setting, "not_run": number of trials that never began,
        "text": a sentence}.
    """
    search = settings.search
    trials = planned(settings)
    not_run = max(trials - begun, 0)
    parts = (f"{not_run} of {trials} not run" if not_run else "", f"{broken_off} interrupted" if broken_off else "")
    undone = ", ".join(filter(None, parts))
    if rule is not None and not_run:
        budget = rule.setting
        text = f"{rule.text}: {undone}"
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
