"""Measure what each shape of the student costs, before any student is trained.

Size, operations and latency depend on a student's shape, not on its weights, so each shape is measured once and not
each trial.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from fsd_tune.data.splits import Task
from fsd_tune.models.loading import ModelInfo, load_config
from fsd_tune.models.student_init import student_config
from fsd_tune.profiling.cost import cost_of, shape_of
from fsd_tune.profiling.latency import Latency, Setting, Target, measure_latency, noise_warnings
from fsd_tune.profiling.machine import Machine
from fsd_tune.settings.schema import Student
from fsd_tune.storage.shape_costs import ShapeCost, ShapesSummary

# Enough for 100 runs of any encoder of common size at batch 1.
_SECONDS = 60.0


def measure_shapes(
    students: Sequence[Student],
    teacher: ModelInfo,
    task: Task,
    length: int,
    setting: Setting | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ShapesSummary:
    """Return what each shape of the student and the teacher cost.

    Students of one shape that start from different weights usually cost the same. If they do not, for example because
    their vocabularies differ, the largest cost counts.

    Args:
        students: the students of the search space, each of one shape.
        teacher: describes the teacher.
        task: gives the heads their size.
        length: number of tokens of the example that operations are counted for.
        setting: the conditions of the latency, which is the median of at least 100 runs, or of as many as a minute has
            time for; None leaves latency out.
        progress: called with the number of shapes whose latency has been measured, and of all.

    Returns:
        The costs, one for each pair of layers and `student.hidden_size`, by layers and width.

    Raises:
        FsdTuneError: the process that measures failed.
    """
    configs: dict[tuple[int, int | None], list[Any]] = {}
    for student in students:
        configs.setdefault((student.layers, student.hidden_size), []).append(student_config(student, teacher, task))
    teacher_config = load_config(teacher.path)
    all_configs = [config for several in configs.values() for config in several] + [teacher_config]
    different: list[Any] = []
    places = [_place_of(config, different) for config in all_configs]
    costs = [cost_of(config, (length,)) for config in different]
    latencies: list[Latency | None] = [None] * len(different)
    if setting is not None:
        targets = [Target(config, (setting,)) for config in different]
        latencies = [found for (found,) in measure_latency(targets, seconds=_SECONDS, progress=progress)]
    measured = [latency for latency in latencies if latency is not None]

    def cost(key: tuple[int, int | None], indices: Sequence[int]) -> ShapeCost:
        sizes, times = [costs[index] for index in indices], [latencies[index] for index in indices]
        slowest = max((time for time in times if time is not None), key=lambda time: time.p50_ms, default=None)
        flops = [size.flops[length] for size in sizes]
        return ShapeCost(
            layers=key[0],
            hidden_size=key[1],
            width=different[indices[0]].hidden_size,
            parameters=max(size.parameters for size in sizes),
            size_mb=max(size.size_mb for size in sizes),
            flops=None if None in flops else max(count for count in flops if count is not None),
            latency_ms=None if slowest is None else slowest.p50_ms,
            spread=None if slowest is None else slowest.spread,
            runs=None if slowest is None else slowest.runs,
        )

    remaining = iter(places)
    found = [cost(key, [next(remaining) for _ in several]) for key, several in configs.items()]
    return ShapesSummary(
        students=sorted(found, key=lambda shape: (shape.layers, shape.width)),
        teacher=cost((teacher_config.num_hidden_layers, None), [next(remaining)]),
        length=length,
        machine=None if setting is None else Machine.current().text,
        setting=None if setting is None else asdict(setting),
        notes=noise_warnings(measured),
    )


def _place_of(config: Any, different: list[Any]) -> int:
    """Return the place of a configuration of the same shape in a list, to which it is added if there is none."""
    shapes = [shape_of(other) for other in different]
    shape = shape_of(config)
    if shape not in shapes:
        different.append(config)
        return len(shapes)
    return shapes.index(shape)
