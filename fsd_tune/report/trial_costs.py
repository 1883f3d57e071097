"""What the student of each trial costs, from the shapes that the search measured before its trials."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from fsd_tune.errors import InputError
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.retired import as_stored
from fsd_tune.settings.shapes import student_of
from fsd_tune.storage.shape_costs import ShapesSummary

# The columns of a table of trials that follow from a trial's shape, with their types.
COST_COLUMNS = {"shape": "str", "latency_ms": "float64", "parameters": "Int64", "size_mb": "float64", "flops": "Int64"}


def costs_of_trials(
    configs: Sequence[Mapping[str, Any]], settings: dict[str, Any], shapes: ShapesSummary
) -> list[dict[str, Any]]:
    """Return the shape and the costs of each configuration's student, without the costs that were not measured.

    Args:
        configs: flat configurations.
        settings: the resolved settings of the search as plain values.
        shapes: the costs of its shapes.

    Returns:
        A mapping for each configuration: `shape` in words, and its costs by name.
    """
    nothing: list[dict[str, Any]] = [{} for _ in configs]
    if not shapes.students:
        return nothing
    try:
        read = Settings.from_dict(as_stored(settings))
    except InputError:
        return nothing
    return [_costs(read, config, shapes) for config in configs]


def _costs(settings: Settings, config: Mapping[str, Any], shapes: ShapesSummary) -> dict[str, Any]:
    # The configuration of a damaged file can lack a key, or have a wrong value.
    with contextlib.suppress(KeyError, ValueError):
        student = student_of(settings, config)
        cost = shapes.of(student.layers, student.hidden_size)
        return {} if cost is None else {"shape": cost.text} | cost.costs
    return {}
