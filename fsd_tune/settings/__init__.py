"""YAML and flags to validated, frozen settings. `fsd_tune.settings.load` reads a file."""

from fsd_tune.settings.loader import Settings, dump, load

__all__ = ["Settings", "dump", "load"]
