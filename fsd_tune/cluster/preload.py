"""Imported by each worker of a local Ray as it starts: torch and transformers load while the driver does other work.

Ray starts a worker for each CPU at once. A worker needs 0.3 GB for these imports, so only the first few make them here,
and the others when they are given something to do.
"""

import os
from contextlib import suppress
from pathlib import Path

from fsd_tune.cluster.private_ray import PLACES

# For the memory's actor, the task that builds the memory, and two trials.
_COUNT = 4


def preload() -> bool:
    """Import what takes seconds, if one of the places is free.

    Returns:
        Whether a place was free.
    """
    folder = os.environ.get(PLACES)
    if folder is None or not any(_taken(Path(folder, f"preload-{place}")) for place in range(_COUNT)):
        return False
    # Whatever is wrong shows where the modules are used.
    with suppress(Exception):
        import ray.tune  # noqa: F401
        import transformers.modeling_utils  # noqa: F401
    return True


def _taken(place: Path) -> bool:
    """Take a place, and return whether it was free."""
    try:
        place.touch(exist_ok=False)
    except OSError:
        return False
    return True


preload()
