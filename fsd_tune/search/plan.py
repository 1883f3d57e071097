"""Check and load the inputs of a search before any work starts."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fsd_tune.cluster import accelerator, destination
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.search import budget, shape_costs, warm_start
from fsd_tune.search import folder as search_folder
from fsd_tune.search.costs import TrialCosts
from fsd_tune.search.options import RunOptions, SearchInputs
from fsd_tune.search.warm_start import WarmStart
from fsd_tune.settings.configuration import same_trials_note
from fsd_tune.settings.loader import Settings
from fsd_tune.storage import open_folder
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.search_summary import SearchSummary
from fsd_tune.storage.shape_costs import ShapesSummary
from fsd_tune.storage.uri import is_uri, local_path
from fsd_tune.training.inputs import Inputs, load_inputs


@dataclass(frozen=True)
class SearchPlan:
    """A search whose inputs have been checked and loaded; `api.execute` runs it.

    Attributes:
        settings: the settings of the search.
        inputs: task, teacher and tokenised splits.
        spec: the specification of the memory that trials use.
        experiment: the search's folder.
        identity: the identity of the search, as `search_folder.describe_identity` returns it.
        given: the inputs of the search, as `search_folder.record_inputs` returns them.
        notes: notes for the user, one line each.
        held: the group of the search that the folder held at the time of planning; None if it held none.
        is_new: true if no trial of this search has begun.
        warm_start: what a new search learns from earlier ones.
        offer: a line that names earlier searches which a new one could start from; empty if there are none.
        shapes: the costs of the students' shapes; empty if the search does not need them.
    """

    settings: Settings
    inputs: Inputs
    spec: MemorySpec
    experiment: ExperimentFolder
    identity: dict[str, Any]
    given: dict[str, Any]
    notes: tuple[str, ...]
    held: str | None = None
    is_new: bool = True
    warm_start: WarmStart = field(default_factory=WarmStart)
    offer: str = ""
    shapes: ShapesSummary = field(default_factory=ShapesSummary)

    @property
    def costs(self) -> TrialCosts | None:
        """The costs that sampler and scheduler use; None if the search has one objective and no limits."""
        return shape_costs.trial_costs(self.settings, self.shapes)

    def warmed_by(self, folders: Sequence[str]) -> "SearchPlan":
        """Return the plan with the results of the tasks before, if its settings say `warm_from: auto`.

        Args:
            folders: the folders of the searches that have run before in the same command. One that cannot be used is
                named in a note.
        """
        if self.settings.search.warm_from != "auto" or not self.is_new or not folders:
            return self
        found = warm_start.collect(self.settings, self.inputs.task.metric, folders)
        notes = (*self.notes, *found.notes, *found.problems)
        return replace(self, warm_start=found.warm_start, notes=notes, offer="")


def plan_search(settings: Settings, inputs: SearchInputs, options: RunOptions) -> SearchPlan:
    """Check and load a search's inputs.

    Args:
        settings: the settings of the search.
        inputs: the task, teacher and folders of the search.
        options: the options of the run.

    Returns:
        The plan, which `execute` runs.

    Raises:
        InputError: the inputs have problems, of which it names all; or no shape of the student meets the limits.
        FsdTuneError: the process that measures latency failed.
    """
    experiment = open_folder.open_experiment(inputs.output)
    settings = with_absolute_paths(settings)
    problems = ProblemCollector()
    if not options.resuming and (same := same_trials_note(settings)):
        problems.add(f"space: {same}.")
    with problems.collect():
        destination.check(options.address, options.ray_temporary)
    data = None if inputs.data is None else Path(inputs.data)
    with problems.collect():
        loaded = load_inputs(settings, inputs.task, str(inputs.teacher), data)
    problems.raise_any()
    if not isinstance(inputs.output, ExperimentFolder):
        experiment.check_writable("--output")
    identity = search_folder.describe_identity(settings, loaded)
    with experiment.look() as folder:
        search_folder.check_output(folder, identity, options.overwrite, options.resuming)
        held = search_folder.group_in(folder)
        is_new = held is None or options.overwrite
        recorded = ShapesSummary() if is_new else SearchSummary.read(folder).shapes
    warm_from = settings.search.warm_from
    # A search that has begun keeps the configurations that it read at its start.
    found = warm_start.collect(
        settings, loaded.task.metric, warm_from if is_new and not isinstance(warm_from, str) else ()
    )
    if found.problems:
        raise InputError(found.problems)
    offer = warm_start.offer(settings, experiment.name) if is_new else ""
    memory, remote = experiment.memory_folder(inputs.memory)
    shapes = shape_costs.measured(settings, loaded, options.device, recorded, options.shown())
    left_out = shape_costs.check_limits(settings, shapes)
    # This may connect to a cluster, so everything else is checked before.
    chosen = accelerator.choose(settings, options.device, options.address)
    spec = MemorySpec.from_inputs(
        settings, loaded, memory, chosen.device, remote=remote, native_bf16=chosen.native_bf16
    )
    given = search_folder.record_inputs(loaded.task, str(inputs.teacher), inputs.data, inputs.memory, options.device)
    shape_notes = (*(shapes.notes or ()), *left_out)
    all_notes = (*loaded.notes, *spec.notes, *budget.notes(settings), *found.notes, *shape_notes)
    return SearchPlan(
        settings, loaded, spec, experiment, identity, given, all_notes, held, is_new, found.warm_start, offer, shapes
    )


def with_absolute_paths(settings: Settings) -> Settings:
    """Return the settings with absolute paths, because workers and later commands start in other folders.

    Args:
        settings: the settings of a search.
    """
    model, search = settings.student.model, settings.search
    student = settings.student
    if model is not None and local_path(model).is_dir():
        student = student.model_copy(update={"model": str(local_path(model).absolute())})
    if not isinstance(search.warm_from, str):
        paths = tuple(path if is_uri(path) else str(local_path(path).absolute()) for path in search.warm_from)
        search = search.model_copy(update={"warm_from": paths})
    return settings.model_copy(update={"student": student, "search": search})
