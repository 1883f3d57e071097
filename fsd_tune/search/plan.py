"""Check and load the inputs of a search before any work starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.cluster import accelerator, destination
from fsd_tune.errors import ProblemCollector
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.search import budget
from fsd_tune.search import folder as search_folder
from fsd_tune.search.options import RunOptions, SearchInputs
from fsd_tune.settings.configuration import same_trials_note
from fsd_tune.settings.loader import Settings
from fsd_tune.storage import open_folder
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.uri import local_path
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
    """

    settings: Settings
    inputs: Inputs
    spec: MemorySpec
    experiment: ExperimentFolder
    identity: dict[str, Any]
    given: dict[str, Any]
    notes: tuple[str, ...]
    held: str | None = None


def plan_search(settings: Settings, inputs: SearchInputs, options: RunOptions) -> SearchPlan:
    """Check and load a search's inputs.

    Args:
        settings: the settings of the search.
        inputs: the task, teacher and folders of the search.
        options: the options of the run.

    Returns:
        The plan, which `execute` runs.

    Raises:
        InputError: the inputs have problems. It names all of them.
    """
    experiment = open_folder.open_experiment(inputs.output)
    settings = _with_absolute_model(settings)
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
    memory, remote = experiment.memory_folder(inputs.memory)
    # This may connect to a cluster, so everything else is checked before.
    chosen = accelerator.choose(settings, options.device, options.address)
    spec = MemorySpec.from_inputs(
        settings, loaded, memory, chosen.device, remote=remote, native_bf16=chosen.native_bf16
    )
    given = search_folder.record_inputs(loaded.task, str(inputs.teacher), inputs.data, inputs.memory, options.device)
    all_notes = (*loaded.notes, *spec.notes, *budget.notes(settings))
    return SearchPlan(settings, loaded, spec, experiment, identity, given, all_notes, held)


def _with_absolute_model(settings: Settings) -> Settings:
    """Return the settings with an absolute path of the student's model, because workers start in other folders."""
    model = settings.student.model
    if model is None or not local_path(model).is_dir():
        return settings
    student = settings.student.model_copy(update={"model": str(local_path(model).absolute())})
    return settings.model_copy(update={"student": student})
