"""Run a benchmark as a command: wrong input ends it with a line for each problem, as the verbs of `fsd-tune` end."""

import sys
from collections.abc import Callable

from fsd_tune.errors import InputError


def run(main: Callable[[], None]) -> None:
    """Call `main`, and end with the code of wrong input if it finds some.

    Args:
        main: reads the command line.
    """
    try:
        main()
    except InputError as error:
        print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
        sys.exit(2)
