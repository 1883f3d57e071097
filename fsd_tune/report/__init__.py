"""Results of a search, read from its folder; `fsd_tune.report.load` returns the tables."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsd_tune.report.results import Results, load

__all__ = ["Results", "load"]


def __getattr__(name: str) -> Any:
    """Import a name on first use, because pandas takes most of a second."""
    if name in __all__:
        from fsd_tune.report import results

        return getattr(results, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
