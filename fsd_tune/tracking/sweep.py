"""Write a search space as a W&B sweep whose agents run `fsd-tune distill`, to compare it with a search."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fsd_tune.data import splits
from fsd_tune.errors import InputError
from fsd_tune.settings.configuration import distributions
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.overrides import flag_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

RUN = "{run}"  # `distill` replaces it in `--output` by the id that W&B gave the run.
_METHODS = {"tpe": "bayes", "gp": "bayes", "cmaes": "bayes", "random": "random", "grid": "grid"}


def sweep_config(
    settings: Settings,
    *,
    space: Path,
    task: splits.TaskLike,
    teacher: str,
    data: Path | None = None,
    memory: Path | None = None,
    output: Path,
    overrides: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the W&B sweep over the same space, as the mapping of its YAML.

    W&B's sweeps have no conditions: every hyperparameter is drawn for every run, and `distill --configuration` drops
    those that the run's method does not use. Fixed hyperparameters stay in the YAML of the space. Stepped ranges become
    lists, because W&B counts its steps from 0.

    Args:
        settings: the settings of `space`.
        space: the YAML file that the agents' command names.
        task: the task, as for `distill`.
        teacher: folder or hub id. Paths are made absolute, because agents can start in any folder.
        data: the folder that holds `SST-2/` and so on; None for the hub.
        memory: the folder of teacher memories; None for `memory/` in `output`.
        output: the folder in which each run gets a folder.
        overrides: settings that replace those of `space`, as {dotted key: YAML text}.

    Raises:
        InputError: the space has neither a range nor a choice.
    """
    task = splits.get_task(task)
    searched = distributions(settings)
    if not searched:
        raise InputError(f"{space}: searches no hyperparameter; a sweep needs a range or a choice.")
    command = [
        "${env}", "fsd-tune", "distill", str(space.absolute()), *task.words, "--teacher", teacher,
        *(["--data", str(data.absolute())] if data is not None else []),
        "--memory", str((memory or output / "memory").absolute()),
        *(f"{flag_of(key)}={value}" for key, value in (overrides or {}).items()),
        "--configuration", "${args_json_file}",
        "--output", str(output.absolute() / RUN), "--wandb-mode", "online",
    ]  # fmt: skip
    if Path(teacher).is_dir():
        command[command.index(teacher)] = str(Path(teacher).absolute())
    asha = settings.asha
    stopping = {"type": "hyperband", "min_iter": asha.grace, "eta": asha.reduction_factor} if asha else None
    return {
        "name": f"{space.stem} {task.id}",
        "project": settings.wandb.project,
        **({"entity": settings.wandb.entity} if settings.wandb.entity else {}),
        "program": "fsd-tune",
        "command": command,
        "method": _METHODS[settings.search.sampler],
        "metric": {"name": task.metric, "goal": "maximize"},
        "run_cap": settings.search.trials,
        **({"early_terminate": stopping} if stopping else {}),
        "parameters": {name: _parameter(distribution) for name, distribution in searched.items()},
    }


def text(config: dict[str, Any]) -> str:
    """Return the YAML text of a sweep, with a comment on how to start it.

    Args:
        config: the sweep, as `sweep_config` returns it.
    """
    return (
        "# wandb sweep THIS_FILE; then on each machine the `wandb agent ...` that it prints.\n"
        "# Each agent trains one student after the other; the first builds the teacher memory, and all share it.\n"
        f"{yaml.safe_dump(config, sort_keys=False, width=120, allow_unicode=True)}"
    )


def _parameter(distribution: "BaseDistribution") -> dict[str, Any]:
    """Return an Optuna distribution as W&B's sweeps write it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return {"values": list(distribution.choices)}
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low = distribution.low
    high = distribution.high
    step = distribution.step
    if distribution.log:
        if isinstance(distribution, IntDistribution):
            return {"distribution": "q_log_uniform_values", "min": low, "max": high, "q": 1}
        return {"distribution": "log_uniform_values", "min": low, "max": high}
    if isinstance(distribution, IntDistribution) and step == 1:
        return {"distribution": "int_uniform", "min": low, "max": high}
    if step is None:
        return {"distribution": "uniform", "min": low, "max": high}
    first, distance = Decimal(str(low)), Decimal(str(step))
    count = int((Decimal(str(high)) - first) / distance) + 1
    kind = type(low)
    return {"values": [kind(first + distance * index) for index in range(count)]}
