"""The costs of the shapes of a search: which are needed, how they are measured, and the limits that they must meet."""

import math
from collections.abc import Collection, Sequence

import numpy as np

from fsd_tune.device import select_device
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.models import onnx
from fsd_tune.models.model_config import positions_of
from fsd_tune.models.student_init import student_config
from fsd_tune.profiling.latency import Setting
from fsd_tune.profiling.shapes import measure_shapes
from fsd_tune.profiling.side_by_side import measures_latency
from fsd_tune.profiling.table import table
from fsd_tune.progress import Display
from fsd_tune.report.members import LATENCY
from fsd_tune.search.costs import TrialCosts
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.objectives import COSTS, SCORE
from fsd_tune.settings.shapes import students
from fsd_tune.storage.shape_costs import ShapeCost, ShapesSummary
from fsd_tune.training.inputs import Inputs

_SHOWN = 3


def needed_costs(settings: Settings) -> set[str]:
    """Return the costs that objectives and limits use, and latency if the choice of the best student needs it.

    Args:
        settings: the settings of the search.
    """
    search = settings.search
    costs = {name for name in (*search.objectives, *search.limits) if name != SCORE}
    several = len({(student.layers, student.hidden_size) for student in students(settings)}) > 1
    has_cost_objective = len(search.objectives) > 1
    if several and (search.pick == "fastest" or (search.pick != "best" and not has_cost_objective)):
        costs.add(LATENCY)
    return costs


def are_measured(settings: Settings) -> bool:
    """Return whether a search measures its shapes: it has several, or objectives or limits need a cost.

    Args:
        settings: the settings of the search.
    """
    shapes = {(student.layers, student.hidden_size) for student in students(settings)}
    return len(shapes) > 1 or bool(needed_costs(settings))


def _needs_latency(settings: Settings) -> bool:
    return LATENCY in needed_costs(settings) or (are_measured(settings) and measures_latency())


def measured(
    settings: Settings, inputs: Inputs, device: str, recorded: ShapesSummary, display: Display
) -> ShapesSummary:
    """Return the costs of all shapes: those that the search's folder holds, else new ones.

    Args:
        settings: the settings of the search.
        inputs: the inputs of the search.
        device: auto, cpu or cuda, as the user gave it. This machine measures, even if a cluster runs the trials.
        recorded: what the summary of an earlier part of the search holds. It may come from another machine; its trials
            were chosen by it, so it is not measured again.
        display: shows progress.

    Returns:
        The costs; empty if the search does not need them.

    Raises:
        InputError: latency cannot be measured as the settings say. It names all reasons.
        FsdTuneError: the process that measures latency failed.
    """
    if not are_measured(settings) or _covers(recorded, settings):
        return recorded
    if not _needs_latency(settings):
        found = _measure(settings, inputs, None, display)
    else:
        setting, notes = _setting(settings, inputs, device)
        display.line("measuring the latency of each shape")
        try:
            found = _measure(settings, inputs, setting, display)
        except FsdTuneError as error:
            # Not every family can be exported to ONNX.
            if LATENCY in needed_costs(settings):
                error.hint = "" if setting.runtime == "torch" else "Another runtime may work: --latency-runtime torch"
                raise
            notes = [*notes, f"latency is left out: {error}"]
            found = _measure(settings, inputs, None, display)
        found.notes = [*notes, *(found.notes or [])]
    for line in table_lines(found):
        display.line(f"  {line}")
    return found


def _setting(settings: Settings, inputs: Inputs, device: str) -> tuple[Setting, list[str]]:
    """Return the conditions of the latency, and a note if they are not those of the settings."""
    latency, lacking = settings.latency, onnx.lacking()
    problems, notes, runtime = [], [], latency.runtime
    if lacking and runtime == "onnxruntime":
        names, install = " and ".join(lacking), "pip install 'fsd_tune[onnx]'"
        if "runtime" in latency.model_fields_set:
            problems.append(
                f"latency.runtime: found onnxruntime, but {names} are not installed: {install}, or must be torch."
            )
        runtime = "torch"
        notes.append(f"latency is measured with torch, because {names} are not installed: {install}.")
    length = max(2, int(np.median(inputs.dev.lengths))) if latency.length is None else latency.length
    configs = [student_config(student, inputs.teacher, inputs.task) for student in students(settings)]
    limits = [inputs.teacher.positions, *map(positions_of, configs)]
    most = min((limit for limit in limits if limit is not None), default=length)
    if length > most:
        problems.append(f"latency.length: found {length}, but the models take at most {most}.")
    if problems:
        raise InputError(problems)
    on_cpu = runtime != "torch" or device == "cpu" or settings.resources.gpus_per_trial == 0
    where = "cpu" if on_cpu else select_device("auto").type
    return Setting(runtime, latency.threads, latency.batch_size, length, where), notes


def _measure(settings: Settings, inputs: Inputs, setting: Setting | None, display: Display) -> ShapesSummary:
    length = max(2, int(np.median(inputs.dev.lengths))) if setting is None else setting.length
    return measure_shapes(
        students(settings), inputs.teacher, inputs.task, length, setting,
        progress=lambda done, total: display.stage("latency", min(done, total), total),
    )  # fmt: skip


def _covers(recorded: ShapesSummary, settings: Settings) -> bool:
    """Return whether recorded costs have every shape of the space and every cost that the settings need."""
    needed = needed_costs(settings)
    costs = [recorded.of(student.layers, student.hidden_size) for student in students(settings)]
    return all(cost is not None and needed <= set(cost.costs) for cost in costs)


def check_limits(settings: Settings, shapes: ShapesSummary) -> list[str]:
    """Check that some shape of the student meets the limits of a search.

    Args:
        settings: the settings of the search.
        shapes: the costs of its shapes.

    Returns:
        A note with the shapes that are over a limit and are not trained; nothing if there are none.

    Raises:
        InputError: no shape meets the limits, or a cost that the settings need cannot be counted.
    """
    costs = shapes.students or []
    unknown = sorted(name for name in needed_costs(settings) if any(name not in cost.costs for cost in costs))
    if unknown:
        key = "search.limits" if unknown[0] in settings.search.limits else "search.objectives"
        others = ", ".join(name for name in COSTS if name not in unknown)
        raise InputError(f"{key}: {unknown[0]} cannot be counted for this family of models; must be of {others}.")
    limits = settings.search.limits
    over = [cost for cost in costs if any(cost.costs[name] > limit for name, limit in limits.items())]
    if not over:
        return []
    if len(over) == len(costs):
        raise InputError(_unmet(costs, limits, shapes.conditions))
    names = "; ".join(f"{cost.text} ({_figures(cost, limits)})" for cost in over[:_SHOWN])
    more = f" and {len(over) - _SHOWN} more" if len(over) > _SHOWN else ""
    return [f"search.limits leaves out {len(over)} of {len(costs)} shapes of the student: {names}{more}."]


def _unmet(costs: Sequence[ShapeCost], limits: dict[str, float], conditions: str) -> list[str]:
    """Return a line for each limit that no shape meets; one line if each is met by some shape, but not all by one."""
    lines = []
    for name, limit in limits.items():
        least = min(costs, key=lambda cost: cost.costs[name])
        if least.costs[name] > limit:
            which = "fastest" if name == LATENCY else "smallest"
            where = f" ({conditions})" if name == LATENCY else ""
            lines.append(
                f"search.limits.{name}: found {limit:g}, but must be at least {least.costs[name]:.4g}, which the "
                f"{which} shape of the student has: {least.text}{where}."
            )
    if lines:
        return lines
    nearest = min(costs, key=lambda cost: max(cost.costs[name] / limit for name, limit in limits.items()))
    return [
        f"search.limits: no shape of the student meets all of them; the nearest, {nearest.text}, has "
        f"{_figures(nearest, limits)}."
    ]


def _figures(cost: ShapeCost, names: Collection[str]) -> str:
    return ", ".join(f"{name} {cost.costs[name]:.4g}" for name in names)


def trial_costs(settings: Settings, shapes: ShapesSummary) -> TrialCosts | None:
    """Return the costs that sampler and scheduler use; None if the search has one objective and no limits.

    Args:
        settings: the settings of the search.
        shapes: the costs of its shapes.
    """
    if len(settings.search.objectives) == 1 and not settings.search.limits:
        return None
    return TrialCosts(settings, {cost.key: cost.costs for cost in shapes.students or []})


def table_lines(shapes: ShapesSummary) -> list[str]:
    """Return the costs of all shapes and of the teacher as a table, with the conditions of the latency.

    Args:
        shapes: the costs.
    """
    has_latency = shapes.setting is not None
    header = ["shape", *(["p50 ms", "spread"] if has_latency else []), "parameters", "MB", "MFLOPs"]
    named = [(cost.text, cost) for cost in shapes.students or []]
    named += [] if shapes.teacher is None else [("teacher", shapes.teacher)]
    rows = [
        [
            name,
            *([f"{cost.latency_ms or math.nan:.3g}", f"{cost.spread or 0:.0%}"] if has_latency else []),
            f"{cost.parameters:,}",
            f"{cost.size_mb:.1f}",
            "-" if cost.flops is None else f"{cost.flops / 1e6:,.0f}",
        ]
        for name, cost in named
    ]
    return [*table(header, rows), *([f"latency: {shapes.conditions}"] if has_latency else [])]
