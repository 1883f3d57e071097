"""The trials of a search whose configurations come from earlier searches."""

import re

from fsd_tune.report.results import Results


def counts(results: Results) -> dict[str, int]:
    """Return the number of trials that come from each earlier search, in the order of their first trials.

    Args:
        results: the results of the search.
    """
    found: dict[str, int] = {}
    for origin in results.trials.sort_values("number")["origin"]:
        if origin:
            name = re.sub(r" trial \d+$", "", origin)
            found[name] = found.get(name, 0) + 1
    return found


def remark(results: Results) -> str:
    """Return in a sentence or two which trials come from earlier searches; empty if none does.

    Args:
        results: the results of the search.
    """
    by_search = counts(results)
    if not by_search:
        return ""
    total = sum(by_search.values())
    names = ", ".join(f"{count} from {name}" for name, count in by_search.items())
    verb = "has its configuration" if total == 1 else "have their configurations"
    text = f"{total} of {len(results.trials)} trials {verb} from earlier searches: {names}."
    if results.best is None:
        return text
    origin = results.best["origin"]
    found = f"comes from {origin}" if origin else "is one that this search found itself"
    return f"{text} The best configuration {found}."
