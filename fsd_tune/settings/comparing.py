"""`search.compare_methods`: how the methods of one search share its budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsd_tune.settings.domains import Choice
from fsd_tune.settings.problems import Problems
from fsd_tune.settings.search_section import Search

if TYPE_CHECKING:
    from fsd_tune.settings.loader import Settings

EQUAL, BEST_OVERALL = "equal", "best_overall"


def check(search: Search, methods: Sequence[str], problems: Problems) -> None:
    """Note a problem if the methods should be compared by a sampler that cannot do it.

    Args:
        search: the section `search`.
        methods: the chosen methods.
        problems: receives the problem.
    """
    if search.compare_methods == EQUAL and search.sampler == "grid" and len(methods) > 1:
        problems.add(
            ("search", "compare_methods"),
            f"is {EQUAL}, but must be {BEST_OVERALL} with sampler grid, which runs every combination once.",
        )


def resolved(search: Search, methods: Sequence[str]) -> Search:
    """Return the section with what `compare_methods: null` stands for. It is null if there is nothing to compare.

    Args:
        search: the section `search`.
        methods: the chosen methods. With one of them the setting has no effect, so users can change `method` alone.
    """
    chosen = search.compare_methods or (BEST_OVERALL if search.sampler == "grid" else EQUAL)
    return search.model_copy(update={"compare_methods": chosen if len(methods) > 1 else None})


def settings_of_method(settings: Settings, method: str) -> Settings:
    """Return the settings of a search of one method with its share of the trials.

    Args:
        settings: the settings of a search that compares its methods equally.
        method: one of them. It stays a choice, so that configurations name it.
    """
    search = settings.search
    first = tuple(item for item in search.first if item.get("method", method) == method)
    share = -(-search.trials // len(settings.methods))
    own = search.model_copy(update={"first": first, "trials": share})
    return settings.model_copy(update={"method": Choice(choice=(method,)), "search": own})
