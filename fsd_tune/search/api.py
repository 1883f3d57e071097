"""Run a search from settings to the best student: one teacher pass, trials on Ray Tune, results in a folder."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsd_tune.cluster import accelerator, connection, nodes
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.report.results import Results, load
from fsd_tune.search import budget, warm_start
from fsd_tune.search import folder as search_folder
from fsd_tune.search.capacity import Capacity
from fsd_tune.search.conclusion import conclude, explained_interrupt
from fsd_tune.search.description import write_description
from fsd_tune.search.driver import SearchDriver
from fsd_tune.search.end_rules import EndRule, EndRules
from fsd_tune.search.equal_methods import new_suggester
from fsd_tune.search.options import RunOptions, SearchInputs, SettingsLike, as_settings, from_keywords
from fsd_tune.search.plan import SearchPlan, plan_search
from fsd_tune.search.process_state import preserved_process_state
from fsd_tune.search.resume import ResumeState, restore_trials
from fsd_tune.search.wandb_logger import WandbSearchLogger
from fsd_tune.settings import loader
from fsd_tune.settings.judging import JUDGE_BY
from fsd_tune.settings.methods import USES_TEACHER
from fsd_tune.settings.overrides import flag_of
from fsd_tune.storage import artifacts, layout, open_folder
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.search_summary import SearchSummary

# Settings that may change when a search is resumed. All settings of `resources` and `wandb` may change, too.
RESUMABLE = (
    "search.trials", "search.time_budget", "search.stop_after_stalled", "search.stop_when", "search.price_per_hour",
    "search.pick",
)  # fmt: skip


def run_search(
    settings: SettingsLike, inputs: SearchInputs | None = None, options: RunOptions | None = None, **keywords: Any
) -> Results:
    """Search for the best student, or continue a search that was interrupted.

    The call writes everything into the folder `output`. Run it again with the same arguments to continue. It restores
    signal handlers, environment variables, warning filters and log levels before it returns.

    Args:
        settings: a `Settings`, a mapping of plain values with the keys of the YAML file, or the path of a YAML file.
        inputs: the task, teacher and folders of the search; None if they are among the keywords.
        options: the options of the run; None for the defaults.
        **keywords: fields of `SearchInputs` (`task`, `teacher`, `output`, `data`, `memory`) and of `RunOptions`
            (`device`, `overwrite`, `errored`, `resuming`, `address`, `ray_temporary`, `display`). They replace those
            of `inputs` and `options`.

    Returns:
        The results of all trials. `Results.best` is the best finished trial; its student is in `output/best`, unless
        `search.pick` chooses another.

    Raises:
        InputError: the inputs have problems. It names all that were found before work started.
        FsdTuneError: something failed midway, or no trial has finished; finished work is kept.

    Example:
        >>> results = run_search(  # doctest: +SKIP
        ...     {"method": "kd", "space": {"alpha": {"low": 0.1, "high": 0.9}}, "search": {"trials": 20}},
        ...     task="rte",
        ...     teacher="teachers/rte",
        ...     data="glue",
        ...     output="runs/rte",
        ... )
        >>> results.best["score"]  # doctest: +SKIP
        0.7075812274368231
    """
    inputs, options = from_keywords(inputs, options, keywords)
    with preserved_process_state():
        return execute(plan_search(as_settings(settings), inputs, options), options)


def resume_search(
    folder: Path | str, overrides: Mapping[str, Any] | None = None, options: RunOptions | None = None, **keywords: Any
) -> Results:
    """Continue a search from its folder alone, or add trials to a search that is done.

    Args:
        folder: the folder of the search, a path or a URI.
        overrides: settings that change, as {dotted key: plain value}; a string is read as on the command line. The keys
            in `RESUMABLE`, `resources` and `wandb` are accepted.
        options: the options of the run; None for the defaults. The device is always the recorded one.
        **keywords: fields of `RunOptions` (`errored`, `address`, `ray_temporary`, `display`). They replace those of
            `options`.

    Returns:
        The results of all trials, including the earlier ones.

    Raises:
        InputError: the folder holds no search, or its settings, teacher or data have changed.
        FsdTuneError: something failed midway, or no trial has finished; finished work is kept.

    Example:
        >>> results = resume_search("runs/rte", {"search.trials": 40})  # doctest: +SKIP
        >>> len(results.trials)  # doctest: +SKIP
        40
    """
    with preserved_process_state():
        experiment = open_folder.open_begun(folder, "FOLDER")
        with experiment.look() as look:
            recorded = search_folder.recorded_inputs(look)
            _check_overrides(overrides or {})
            # JSON is YAML.
            given = (overrides or {}).items()
            texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in given}
            settings = loader.load(look / layout.SETTINGS, texts, stored=True)
        keywords = keywords | recorded | {"output": experiment, "resuming": True}
        return run_search(settings, None, options, **keywords)


# The documented names in `fsd_tune.search`.
run = run_search
resume = resume_search


def _check_overrides(overrides: Mapping[str, str]) -> None:
    refused = [key for key in overrides if not key.startswith(("resources.", "wandb.")) and key not in RESUMABLE]
    if refused:
        names = ", ".join(flag_of(key) for key in RESUMABLE)
        raise InputError(
            f"{flag_of(key)}: cannot change in a search that has begun; {names}, resources and wandb can."
            for key in refused
        )


def execute(plan: SearchPlan, options: RunOptions) -> Results:
    """Run a planned search to its end, or continue it after an earlier part.

    Args:
        plan: the plan of the search.
        options: the options of the run.

    Returns:
        The results of all trials, as the folder of the search holds them.

    Raises:
        InputError: another search runs in the folder, or the cluster lacks resources that the search needs.
        FsdTuneError: something failed midway, or no trial has finished.
    """
    experiment, display = plan.experiment, options.shown()
    notes = list(plan.notes)
    with search_folder.hold_folder(experiment.folder, experiment.name), experiment.lock():
        # Hours may have passed since the folder was checked; whatever was written into it meanwhile is not overwritten.
        overwrite = options.overwrite and search_folder.group_in(experiment.folder) == plan.held
        search_folder.check_output(experiment.folder, plan.identity, overwrite, options.resuming)
        if options.overwrite and experiment.folder.is_dir():
            search_folder.clear_folder(experiment)
        past = ResumeState()
        if (experiment.folder / layout.SUMMARY).exists():
            plan = dataclasses.replace(plan, warm_start=warm_start.read(experiment.folder))
            past = restore_trials(experiment.folder.absolute(), plan.settings, options.errored, experiment)
            notes += past.notes
            experiment.sync_unfinished()
        for note in notes:
            display.line(f"note: {note}")
        if plan.offer and not past.trials:
            display.line(plan.offer)
        rule = _rule_that_ended(plan, past)
        # A rule lets no new trial begin, but interrupted trials are completed.
        to_do = (len(past.trials) if rule else budget.planned(plan.settings)) - past.ended
        if past.trials:
            display.line(
                f"{experiment.name}: {past.ended} trials have ended before; {max(to_do, 0)} to run now, "
                f"{len(past.restarts)} of them from a checkpoint"
            )
        if to_do > 0:
            with connection.connect(options.address, options.ray_temporary):
                results = _run_trials(plan, past, to_do, notes, options)
        else:
            results = _conclude_again(plan, past, rule, options)
    if results.best is None:
        reasons = results.trials.loc[results.trials["state"] == TrialState.FAILED, "reason"].unique()
        reason = f": {reasons[0]}" if len(reasons) else "; give it more time."
        raise FsdTuneError(
            f"{experiment.name}: no trial has finished{reason}", hint="Its report.html lists the reasons of all trials."
        )
    return results


def _run_trials(plan: SearchPlan, past: ResumeState, to_do: int, notes: list[str], options: RunOptions) -> Results:
    """Check the connected cluster, describe the search in its folder, and run it."""
    spec = plan.spec
    gpus = accelerator.gpus_for(plan.settings, spec.device)
    idle = "" if gpus else accelerator.idle_note(plan.settings, options.device)
    if idle:
        notes.append(idle)
        options.shown().line(f"note: {idle}")
    workers = connection.workers(plan.settings, gpus)
    spec = dataclasses.replace(spec, brought=plan.experiment.upload_inputs(spec.model_folders))
    paths = [] if spec.brought else spec.model_folders
    size = spec.nbytes if set(plan.settings.methods) & USES_TEACHER else 0
    needs = nodes.Needs(gpus, paths, spec.folder if spec.remote else None, size)
    nodes.require(plan.experiment, needs)
    plan = dataclasses.replace(plan, spec=spec, notes=tuple(notes))
    summary = write_description(plan)
    driver = SearchDriver(plan, past, to_do, Capacity(gpus, workers, needs), summary, options.shown())
    return driver.run()


def _rule_that_ended(plan: SearchPlan, past: ResumeState) -> EndRule | None:
    if not past.trials:
        return None
    examples = (plan.inputs.task.metric, len(plan.spec.dev))
    return EndRules(plan.settings, past.trials, new_suggester(plan.settings, costs=plan.costs), examples).rule


def _conclude_again(plan: SearchPlan, past: ResumeState, rule: EndRule | None, options: RunOptions) -> Results:
    """Write summary, best student and report if no trial is to run; a search killed after its last trial lacks them."""
    folder = plan.experiment.folder
    summary = SearchSummary.read(folder)
    ending = budget.ended_by(plan.settings, len(past.trials), len(past.trials) - past.ended, rule)
    ending = ending if ending["not_run"] else summary.ended_by.as_json() or ending
    summary.update(state="done", identity=plan.identity, inputs=plan.given, ended_by=ending, judge_by=JUDGE_BY)
    if plan.shapes:
        summary.update(shapes=plan.shapes)
    summary.write(folder)
    # `search.pick` may have changed, which the results are read with.
    artifacts.write_text(folder / layout.SETTINGS, loader.dump(plan.settings))
    tracker = WandbSearchLogger(plan.settings.wandb, folder, summary, options.shown())
    results = load(folder)
    with explained_interrupt(plan.experiment.name) as missing:
        conclude(plan, results, tracker, True, missing, options.shown().line)
    return results
