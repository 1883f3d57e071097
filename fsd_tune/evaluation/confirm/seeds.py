"""Train given configurations on fresh seeds, with the task, data, teacher and student of a finished search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsd_tune.data.metrics import compute_metrics
from fsd_tune.evaluation.confirm.api import hold_search, runs_of
from fsd_tune.evaluation.confirm.counts import SeedCounts
from fsd_tune.evaluation.confirm.figures import run_requests
from fsd_tune.evaluation.confirm.inputs import Configuration, plan_confirmation
from fsd_tune.progress import Display
from fsd_tune.storage import open_folder


def train_on_seeds(
    folder: Path | str,
    configurations: Mapping[str, Mapping[str, Any]],
    seeds: int,
    *,
    address: str | None = None,
    ray_temporary: Path | None = None,
    display: Display | None = None,
) -> dict[str, dict[int, dict[str, float]]]:
    """Train configurations on the same fresh seeds, and return the metrics of each run's last evaluation.

    The runs are stored with those of `confirm`, so a run that has ended is never trained again.

    Args:
        folder: the folder of a finished search.
        configurations: complete configurations by name.
        seeds: number of seeds, at least 2.
        address: the address of a Ray cluster; None for a local instance.
        ray_temporary: Ray's folder for sockets and logs; None for Ray's own.
        display: shows progress; None shows nothing.

    Returns:
        {name: {seed: {metric: value}}}, without runs that diverged. The examples are those that the search selected
        on: dev, unless it had a holdout.

    Raises:
        InputError: the folder holds no finished search, or its inputs have changed.
        FsdTuneError: a run could not be trained. Runs that have ended are kept.
    """
    display = display or Display(quiet=True)
    experiment = open_folder.open_begun(folder, "FOLDER")
    with hold_search(experiment):
        plan = plan_confirmation(experiment, SeedCounts(1, 1, seeds), None, address)
        # Equal configurations are one run for each seed.
        different: list[Configuration] = []
        place = {}
        for name, config in configurations.items():
            equal = [index for index, other in enumerate(different) if other.config == config]
            place[name] = equal[0] if equal else len(different)
            different += [] if equal else [Configuration(name, dict(config))]
        requests = run_requests(plan, different, plan.fresh_seeds(seeds))
        with runs_of(plan, experiment, display, address, ray_temporary) as runs:
            finished = runs.finish(f"{experiment.name}: {seeds} seeds", requests)
    metrics: list[dict[int, dict[str, float]]] = [{} for _ in different]
    for request in requests:
        logits = finished[request.name].logits
        if logits is not None:
            values = compute_metrics(plan.inputs.task, logits, plan.inputs.dev.labels)
            metrics[different.index(request.configuration)][request.seed] = values
    return {name: metrics[index] for name, index in place.items()}
