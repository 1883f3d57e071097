"""Imported by each worker of a local Ray as it starts: torch and transformers load while the driver does other work.

Ray starts a worker for each CPU at once, and nothing says which of them will be used. A worker needs 0.3 GB for these
imports, so only the first few make them here, which are all on up to eight CPUs. The others import when they are used.

Nothing is imported on a machine with GPUs: transformers may ask CUDA for its devices, and a process that has done so
does not heed which of them Ray gives it later.
"""

import os
from contextlib import suppress
from pathlib import Path

from fsd_tune.cluster.private_ray import PLACES

_COUNT = 8


def preload() -> bool:
    """Import transformers and Ray Tune if fewer than `_COUNT` workers have done so.

    Returns:
        Whether this worker is one of them.
    """
    folder = os.environ.get(PLACES)
    if folder is None or not any(_taken(Path(folder, f"preload-{place}")) for place in range(_COUNT)):
        return False
    # An error of an import is raised again where the module is used.
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
