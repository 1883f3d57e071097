"""Settings of a search: from YAML, flags or Python values to validated, frozen objects.

`fsd_tune.settings.load` reads a file, `Settings.from_dict` takes Python values.
"""

from fsd_tune.settings.loader import Settings, dump, load

__all__ = ["Settings", "dump", "load"]
