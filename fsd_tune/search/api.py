"""A search from settings to the best student: one teacher pass, trials on Ray Tune, results that are kept."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.cluster import connection, nodes
from fsd_tune.data.splits import TaskLike
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.progress import Display
from fsd_tune.report.results import Results, load
from fsd_tune.search import budget
from fsd_tune.search import folder as search_folder
from fsd_tune.search.driver import SearchDriver, conclude
from fsd_tune.search.resume import ResumeState, restore_trials
from fsd_tune.search.study import stall
from fsd_tune.search.wandb_logger import WandbSearchLogger
from fsd_tune.settings import loader
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_TEACHER
from fsd_tune.settings.overrides import flag_of
from fsd_tune.storage import artifacts, open_folder
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.training.inputs import Inputs, load_inputs

# Settings that a search may be continued with other values of, beside all of `resources` and `wandb`.
RESUMABLE = ("search.trials", "search.time_budget", "search.stop_after_stalled")


def run(
    settings: Settings,
    *,
    task: TaskLike,
    teacher: str,
    output: Path | str | ExperimentFolder,
    data: Path | str | None = None,
    memory: Path | str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    errored: bool = False,
    resuming: bool = False,
    address: str | None = None,
    ray_temporary: Path | None = None,
    display: Display | None = None,
) -> Results:
    """Search, or continue a search that was interrupted, and return its results.

    Args:
        settings: as `settings.load` gives them.
        task: id of a GLUE task, or the file (a Path) of one's own.
        teacher: folder or hub id of the fine-tuned teacher.
        output: the search's folder, or a URI that pyarrow takes (s3://, gs://); new, or of the same search, whose
            ended trials are then kept.
        data: the folder that holds `SST-2/` and so on, or what the file's paths start from; None for the hub, or the
            file's own folder.
        memory: the folder, or URI, for teacher outputs and memories; None for `output/memory`.
        device: auto, cpu or cuda; auto is cuda when trials get a share of a GPU.
        overwrite: delete what `output` holds of another search.
        errored: run failed trials of an earlier part of the search again.
        resuming: `output` holds the search already; inputs that have changed since are an error.
        address: of a Ray cluster; None for a local instance.
        ray_temporary: Ray's folder for sockets and logs.
        display: where progress goes.

    Raises:
        InputError: with every problem found before work starts.
        FsdTuneError: something failed midway; what was finished is kept.
    """
    planned = plan(
        settings, task=task, teacher=teacher, output=output, data=data, memory=memory, device=device,
        overwrite=overwrite, resuming=resuming, address=address,
    )  # fmt: skip
    return execute(
        planned, overwrite=overwrite, errored=errored, address=address, ray_temporary=ray_temporary, display=display
    )


@dataclass(frozen=True)
class Plan:
    """A search whose inputs have been checked and loaded; `execute` runs it.

    Attributes:
        settings, inputs, spec: what is searched.
        where: the search's folder.
        identity: as `search_folder.identity` gives it.
        given: as `search_folder.given` gives it.
        notes: for people.
    """

    settings: Settings
    inputs: Inputs
    spec: MemorySpec
    where: ExperimentFolder
    identity: dict[str, Any]
    given: dict[str, Any]
    notes: tuple[str, ...]


def plan(
    settings: Settings,
    *,
    task: TaskLike,
    teacher: str,
    output: Path | str | ExperimentFolder,
    data: Path | str | None = None,
    memory: Path | str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resuming: bool = False,
    address: str | None = None,
) -> Plan:
    """Check and load a search's inputs; arguments and errors are `run`'s."""
    where = open_folder.open_experiment(output)
    settings = _anchored(settings)
    inputs = load_inputs(settings, task, teacher, None if data is None else Path(data))
    if not isinstance(output, ExperimentFolder):
        where.check_writable("--output")
        where.download()
    artefacts, remote = where.memory_folder(memory)
    spec = MemorySpec.from_inputs(
        settings, inputs, artefacts, connection.device_for(settings, device, address), remote=remote,
        elsewhere=connection.elsewhere(address),
    )  # fmt: skip
    identity = search_folder.identity(settings, spec)
    search_folder.check(where.folder, identity, overwrite, resuming)
    given = search_folder.given(inputs.task, teacher, data, memory, device)
    return Plan(settings, inputs, spec, where, identity, given, (*inputs.notes, *spec.notes, *budget.notes(settings)))


def _anchored(settings: Settings) -> Settings:
    """With the student's model absolute where it is a folder: workers start elsewhere."""
    model = settings.student.model
    if model is None or not Path(model).expanduser().is_dir():
        return settings
    student = settings.student.model_copy(update={"model": str(Path(model).expanduser().absolute())})
    return settings.model_copy(update={"student": student})


def execute(
    planned: Plan,
    *,
    overwrite: bool = False,
    errored: bool = False,
    address: str | None = None,
    ray_temporary: Path | None = None,
    display: Display | None = None,
) -> Results:
    """Run a planned search to its end, or what an earlier part of it has left; arguments and errors are `run`'s."""
    display = display or Display(quiet=True)
    settings, inputs, spec, where = planned.settings, planned.inputs, planned.spec, planned.where
    folder = where.folder
    notes = list(planned.notes)
    with search_folder.held(folder), where.lock():
        if overwrite and folder.is_dir():
            search_folder.clear(where)
        past = ResumeState()
        if (folder / "summary.json").exists():
            past = restore_trials(folder.absolute(), settings, errored)
            notes += past.notes
            where.sync_unfinished()
        for note in notes:
            display.line(f"note: {note}")
        stalled = stall(settings, past.trials).over
        to_do = budget.planned(settings) - past.ended
        if stalled:
            # Nothing new begins; what had begun is brought to its end.
            to_do = len(past.trials) - past.ended
        if past.trials:
            display.line(
                f"{where.name}: {past.ended} trials have ended before; {max(to_do, 0)} to run now, "
                f"{len(past.restarts)} of them from a checkpoint"
            )
        if to_do > 0:
            with connection.connect(address, ray_temporary):
                gpus = connection.gpus_for(settings, spec.device)
                workers = connection.workers(settings, gpus)
                spec = dataclasses.replace(spec, brought=where.upload_inputs(spec.model_folders))
                paths = [] if spec.brought else spec.model_folders
                size = spec.nbytes if set(settings.methods) & USES_TEACHER else 0
                needs = nodes.Needs(gpus, paths, spec.folder if spec.remote else None, size)
                nodes.require(where, needs)
                summary = search_folder.write_description(
                    where, planned.identity, settings, inputs, spec, notes, planned.given
                )
                SearchDriver(
                    settings, inputs, spec, where, summary, gpus, workers, past, to_do, display, needs
                ).run()  # fmt: skip
        else:
            # Nothing is to begin; a search that was killed after its last trial still lacks what follows.
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            end = budget.ended_by(settings, len(past.trials), len(past.trials) - past.ended, stalled)
            end = end if end["not_run"] else summary.get("ended_by") or end
            news = {"state": "done", "identity": planned.identity, "inputs": planned.given, "ended_by": end}
            artifacts.write_json(folder / "summary.json", summary | news)
            tracked = WandbSearchLogger(settings.wandb, folder, summary, display)
            conclude(where, inputs, spec, done=True, tracked=tracked)
    results = load(folder)
    if results.best is None:
        reasons = results.trials.loc[results.trials["state"] == "failed", "reason"].unique()
        why = f": {reasons[0]}" if len(reasons) else "; give it more time."
        raise FsdTuneError(
            f"{where.name}: no trial has finished{why}", hint="The reasons of all are in its report.html."
        )
    return results


def resume(
    folder: Path | str,
    overrides: Mapping[str, str] | None = None,
    *,
    errored: bool = False,
    address: str | None = None,
    ray_temporary: Path | None = None,
    display: Display | None = None,
) -> Results:
    """Go on with a search from its folder alone, or add trials to one that is done.

    Args:
        folder: the search's, a path or a URI.
        overrides: settings that may differ from before, as {dotted key: YAML text}: `RESUMABLE`.
        errored: run failed trials again, under their own numbers.
        address, ray_temporary, display: as for `run`.

    Raises:
        InputError: no search is there, or settings, teacher or data are not those that it began with.
        FsdTuneError: something failed midway; what was finished is kept.
    """
    where = open_folder.open_experiment(folder)
    where.check_writable("FOLDER")
    where.download()
    given = search_folder.recorded_inputs(where.folder)
    refused = [key for key in overrides or {} if not key.startswith(("resources.", "wandb.")) and key not in RESUMABLE]
    if refused:
        names = ", ".join(flag_of(key) for key in RESUMABLE)
        raise InputError(
            [
                f"{flag_of(key)}: cannot change in a search that has begun; {names}, resources and wandb can."
                for key in refused
            ]
        )
    settings = loader.load(where.folder / "settings.yaml", overrides)
    return run(
        settings, **given, output=where, errored=errored, resuming=True, address=address,
        ray_temporary=ray_temporary, display=display,
    )  # fmt: skip
