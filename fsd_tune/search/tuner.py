"""Ray Tune's tuner of a search, from its plan and its own searcher, scheduler, callback and stopper."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray import tune

from fsd_tune.cluster import placement
from fsd_tune.memory.build import BuiltMemory
from fsd_tune.search.asha import ResumableAsha
from fsd_tune.search.capacity import Capacity
from fsd_tune.search.ending import Ending
from fsd_tune.search.plan import SearchPlan
from fsd_tune.search.resume import ResumeState
from fsd_tune.search.searcher import StudySearcher
from fsd_tune.search.trial import DistillTrial
from fsd_tune.search.trial_logger import TrialLogger
from fsd_tune.storage import layout

_FAILURES_PER_TRIAL = 2


@dataclass(frozen=True)
class TunerParts:
    """The project's own parts of a tuner.

    Attributes:
        searcher: suggests the trials.
        scheduler: stops trials early; None if each runs to its end.
        logger: writes reports and ends of trials.
        ending: ends the search early.
    """

    searcher: StudySearcher
    scheduler: ResumableAsha | None
    logger: TrialLogger
    ending: Ending


def new_tuner(
    plan: SearchPlan,
    past: ResumeState,
    to_do: int,
    capacity: Capacity,
    memory: tuple[Any, BuiltMemory] | None,
    reports: int,
    parts: TunerParts,
) -> tune.Tuner:
    """Return the tuner of a search.

    Args:
        plan: the plan of the search.
        past: the trials of an earlier part of the search.
        to_do: the number of trials to run.
        capacity: the capacity of the cluster for trials.
        memory: the memory's actor and the built memory; None for a search of `ce` alone.
        reports: the number of reports of a whole trial.
        parts: the project's own parts.
    """
    resources = plan.settings.resources
    trainable = tune.with_parameters(
        DistillTrial,
        settings=plan.settings,
        spec=plan.spec,
        memory=memory,
        reports=reports,
        ending=parts.ending.key,
    )
    trial_resources = placement.request(resources.placement, resources.cpus_per_trial, capacity.gpus)
    folders = {number: restart.parent.name for number, restart in past.restarts.items()}
    return tune.Tuner(
        tune.with_resources(trainable, trial_resources),
        tune_config=tune.TuneConfig(
            num_samples=to_do,
            search_alg=parts.searcher,
            scheduler=parts.scheduler,
            max_concurrent_trials=capacity.workers,
            reuse_actors=True,
            trial_dirname_creator=partial(_trial_folder, folders),
        ),
        run_config=tune.RunConfig(
            name=layout.RESULTS,
            **plan.experiment.ray_storage(),
            callbacks=[parts.logger],
            stop=parts.ending,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=_FAILURES_PER_TRIAL),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )


def _trial_folder(folders: Mapping[int, str], trial: Any) -> str:
    """Return the name of a trial's folder; a restarted trial keeps its folder."""
    number = trial.config["trial"]
    return folders.get(number, f"{number:04d}_{trial.trial_id}")
