"""The versions of what decides what a run computes."""

import platform
from importlib import metadata

_PACKAGES = ("fsd_tune", "ray", "torch", "transformers", "datasets", "optuna", "scikit-learn", "numpy", "wandb")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
