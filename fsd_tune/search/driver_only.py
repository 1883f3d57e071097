"""A base for Tune's searcher, scheduler and callback, which live in the driver alone."""

from typing import Any, Self


class DriverOnly:
    """An object that Tune neither copies nor stores.

    Tune's copies of it are the object itself, and its snapshots are empty: a resumed search is rebuilt from the
    trials' own files.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}
