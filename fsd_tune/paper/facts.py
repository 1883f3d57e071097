"""The paper's systems, ranges by task and printed results, read from the data files beside this module."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

# The systems that have a search space, by the name of its file in search_spaces/paper/: the name in the paper.
SYSTEMS = {
    "vkd": "VKD",
    "pkd": "PKD",
    "rkd": "RKD",
    "fsd_i": "FSD_I",
    "fsd_l": "FSD_L",
    "fsd_g": "FSD (w/o IL)",
    "fsd_il": "FSD (w/o G)",
    "fsd": "FSD",
}
# Those of Tables 2 and 3. The others stand in the paper's ablations.
IN_TABLES = ("vkd", "pkd", "rkd", "fsd")
BASELINES = ("vkd", "pkd", "rkd")
PROPOSED = "fsd"
SEEDS = 6


@dataclass(frozen=True)
class Printed:
    """A number of the paper's tables, in percent.

    Attributes:
        mean: the mean of six runs; of the teacher its only one.
        deviation: their standard deviation; None for the teacher.
    """

    mean: float
    deviation: float | None = None


def printed(task: str, metric: str) -> dict[str, Printed]:
    """Return the results that the paper prints.

    Args:
        task: id of a GLUE task.
        metric: one of the task's metrics.

    Returns:
        Numbers by system, `teacher` and `minilm` included; empty for a metric that the paper does not print.
    """
    rows = _data("tables.yaml")[task].get(metric, {})
    return {system: Printed(*numbers) for system, numbers in rows.items() if system != "p"}


def printed_p(task: str, metric: str) -> float | None:
    """Return the p-value that the paper prints for FSD against its best baseline; None if it prints none.

    Args:
        task: id of a GLUE task.
        metric: one of the task's metrics.
    """
    numbers = _data("tables.yaml")[task].get(metric, {}).get("p")
    return None if numbers is None else float(numbers[0])


def teacher_rate(task: str) -> float:
    """Return the learning rate of a task's teacher.

    Args:
        task: id of a GLUE task.
    """
    return float(_data("ranges.yaml")["teacher"].get(task, 2e-5))


def range_overrides(system: str, task: str) -> dict[str, Any]:
    """Return how the space of a system differs for a task from that for RTE.

    Args:
        system: a key of `SYSTEMS`.
        task: id of a GLUE task.

    Returns:
        Overrides for `settings.load`: {dotted key: value}.
    """
    ranges = _data("ranges.yaml")
    overrides: dict[str, Any] = {}
    if system in ("fsd_g", "fsd") and task in ranges["gamma_m"]:
        overrides["space.gamma_m"] = ranges["gamma_m"][task]
    if system == "fsd_g" and task in ranges["beta"]:
        overrides["space.beta"] = ranges["beta"][task]
    structure = ranges["structure"].get(task)
    if structure and system in ("fsd_i", "fsd_l"):
        overrides["space.beta"] = {"choice": structure}
    if structure and system == "fsd":
        overrides |= {f"space.{name}": {"choice": [0.1, 1.0, *structure]} for name in ("gamma_i", "gamma_l")}
    return overrides


@cache
def _data(name: str) -> dict[str, Any]:
    text = (resources.files("fsd_tune.paper") / name).read_text(encoding="utf-8")
    # YAML 1.1 reads 6e-7, which has no point, as text.
    data: dict[str, Any] = _with_numbers(yaml.safe_load(text))
    return data


def _with_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_numbers(each) for each in value]
    return float(value) if isinstance(value, str) else value
