"""Numbers of configurations and seeds of a confirmation."""

from dataclasses import dataclass

MOST_SEEDS = 900
_FRESH_SEEDS = 5


@dataclass(frozen=True)
class SeedCounts:
    """The sizes of a confirmation.

    Attributes:
        top: number of a search's best configurations that compete.
        selection: number of selection seeds.
        fresh: number of fresh seeds; None for 5, or as many as `detect` needs.
        most: largest number of fresh seeds of a sequential confirmation, which stops as soon as every comparison is
            decided or cannot be decided any more; None for a fixed number.
        detect: the difference in points that the fresh seeds shall be able to show; None for any.
    """

    top: int = 5
    selection: int = 5
    fresh: int | None = None
    most: int | None = None
    detect: float | None = None

    @property
    def known(self) -> int | None:
        """The number of fresh seeds, the largest one if it is sequential; None if the spread decides it."""
        if self.fresh is None and self.most is None:
            return None if self.detect is not None else _FRESH_SEEDS
        return self.most or self.fresh

    def problems(self) -> list[str]:
        """Return a line for each number that is out of range or contradicts another."""
        problems = [] if self.top >= 1 else [f"--top: found {self.top}, but must be at least 1."]
        counts = (("--seeds", self.selection, 1), ("--fresh-seeds", self.fresh, 2), ("--max-seeds", self.most, 3))
        for flag, count, least in counts:
            if count is not None and not least <= count <= MOST_SEEDS:
                problems.append(f"{flag}: found {count}, but must be in {least}..{MOST_SEEDS}.")
        if self.fresh is not None and self.most is not None:
            problems.append("--max-seeds: contradicts --fresh-seeds, which is a fixed number; leave one of them out.")
        if self.detect is not None and not 0 < self.detect <= 100:
            problems.append(f"--detect: found {self.detect:g}, but must be in points, above 0 and at most 100.")
        return problems
