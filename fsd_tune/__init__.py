"""Ray-distributed hyperparameter search for feature structure distillation (FSD) of BERT-like encoders.

Example:
    >>> import fsd_tune as fsd
    >>> settings = fsd.Settings.from_dict({"method": "kd", "space": {"alpha": {"low": 0.1, "high": 0.9}}})
    >>> results = fsd.run_search(settings, task="rte", teacher="teachers/rte", output="runs/rte")  # doctest: +SKIP
    >>> results.trials.head()  # doctest: +SKIP
    >>> model, tokenizer = results.student()  # doctest: +SKIP

Everything is imported on first use, so `import fsd_tune` loads neither torch nor Ray. Progress goes to
`logging.getLogger("fsd_tune")`.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from fsd_tune.errors import FsdTuneError, InputError

if TYPE_CHECKING:
    from fsd_tune import cka, losses
    from fsd_tune.data.splits import get_task as load_task
    from fsd_tune.data.tasks import Task
    from fsd_tune.evaluation.confirm.api import confirm
    from fsd_tune.evaluation.scoring import evaluate
    from fsd_tune.profiling.api import measure
    from fsd_tune.report.compare import compare
    from fsd_tune.report.results import Results
    from fsd_tune.report.results import load as load_results
    from fsd_tune.search.api import resume_search, run_search
    from fsd_tune.settings.loader import Settings
    from fsd_tune.settings.loader import load as load_settings
    from fsd_tune.training.api import build_memory, distill, fine_tune_teacher

__version__ = "0.1.0"

__all__ = [
    "FsdTuneError",
    "InputError",
    "Results",
    "Settings",
    "Task",
    "__version__",
    "build_memory",
    "cka",
    "compare",
    "confirm",
    "distill",
    "evaluate",
    "fine_tune_teacher",
    "load_results",
    "load_settings",
    "load_task",
    "losses",
    "measure",
    "resume_search",
    "run_search",
]

# A library is silent unless its user asks; without this, warnings would go to standard error.
logging.getLogger("fsd_tune").addHandler(logging.NullHandler())

# The module and the symbol of each public name that is not a module.
_PUBLIC_NAMES = {
    "Results": ("report.results", "Results"),
    "Settings": ("settings.loader", "Settings"),
    "Task": ("data.tasks", "Task"),
    "build_memory": ("training.api", "build_memory"),
    "compare": ("report.compare", "compare"),
    "confirm": ("evaluation.confirm.api", "confirm"),
    "distill": ("training.api", "distill"),
    "evaluate": ("evaluation.scoring", "evaluate"),
    "fine_tune_teacher": ("training.api", "fine_tune_teacher"),
    "load_results": ("report.results", "load"),
    "load_settings": ("settings.loader", "load"),
    "load_task": ("data.splits", "get_task"),
    "measure": ("profiling.api", "measure"),
    "resume_search": ("search.api", "resume_search"),
    "run_search": ("search.api", "run_search"),
}
_MODULES = ("cka", "losses")


def __getattr__(name: str) -> Any:
    """Import a public name on its first use (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"fsd_tune.{name}")
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module 'fsd_tune' has no attribute {name!r}")
    module, symbol = _PUBLIC_NAMES[name]
    value = getattr(importlib.import_module(f"fsd_tune.{module}"), symbol)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
