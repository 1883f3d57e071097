"""The versions of Python and of the packages that influence what a run computes."""

import platform
from importlib import metadata

_PACKAGES = ("fsd_tune", "ray", "torch", "transformers", "datasets", "optuna", "scikit-learn", "numpy", "wandb")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that influence results, by name."""
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "unknown"
    return installed
