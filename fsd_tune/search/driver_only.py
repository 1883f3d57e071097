"""A base for Tune's searcher, scheduler and callback, which live in the driver alone."""

from typing import Any, Self


class DriverOnly:
    """An object that Tune neither copies nor stores.

    A copy is the object itself, and its snapshot is empty, because a resumed search is rebuilt from the trials' files.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}
