"""Start Python programs in processes of their own."""

import sys


def python(*arguments: str) -> list[str]:
    """Return the command of this Python that does not import from the working folder.

    A user's `wandb.py` or `statistics.py` there would be taken for the library.

    Args:
        *arguments: such as `-m` and the name of a module.
    """
    return [sys.executable, "-P", *arguments]
