"""Search hyperparameters with Optuna and Ray Tune; `fsd_tune.search.run` starts a search."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsd_tune.search.api import resume, resume_search, run, run_search
    from fsd_tune.search.options import RunOptions, SearchInputs

__all__ = ["RunOptions", "SearchInputs", "resume", "resume_search", "run", "run_search"]


def __getattr__(name: str) -> Any:
    """Import on first use, because Ray and torch take seconds."""
    if name in __all__:
        from fsd_tune.search import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
