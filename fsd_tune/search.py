"""A search from settings to the best student: one teacher pass, trials on Ray Tune, results that are kept."""

import time
from pathlib import Path
from typing import Any

from fsd_tune import cluster, files, memory_actor, report, search_folder
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.inputs import Inputs, gather
from fsd_tune.methods import USES_TEACHER
from fsd_tune.prepare import Prepared, Spec, spec_for
from fsd_tune.progress import Display, SearchProgress, duration
from fsd_tune.results import Results, load
from fsd_tune.settings import Settings
from fsd_tune.space import distributions
from fsd_tune.student_folder import export_best
from fsd_tune.study import Known, Record

_FAILURES_PER_TRIAL = 2


def run(
    settings: Settings,
    *,
    task: str,
    teacher: str,
    output: Path | str,
    data: Path | str | None = None,
    memory: Path | str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    address: str | None = None,
    ray_temporary: Path | None = None,
    display: Display | None = None,
) -> Results:
    """Search, or continue a search that was interrupted, and return its results.

    Args:
        settings: as `settings.load` gives them.
        task: id of a GLUE task.
        teacher: folder or hub id of the fine-tuned teacher.
        output: the search's folder; new, or of the same search, whose ended trials are then kept.
        data: the folder that holds `SST-2/` and so on; None for the hub.
        memory: the folder for teacher outputs and memories; None for `output/memory`.
        device: auto, cpu or cuda; auto is cuda when trials get a share of a GPU.
        overwrite: delete what `output` holds of another search.
        address: of a Ray cluster; None for a local instance.
        ray_temporary: Ray's folder for sockets and logs.
        display: where progress goes.

    Raises:
        InputError: with every problem found before work starts.
        FsdTuneError: something failed midway; what was finished is kept.
    """
    display = display or Display(quiet=True)
    folder = Path(output)
    inputs = gather(settings, task, teacher, None if data is None else Path(data))
    spec, notes = spec_for(
        settings, inputs.teacher, inputs.task.id, inputs.train, inputs.dev,
        Path(memory) if memory else folder / "memory", _device(settings, device),
    )  # fmt: skip
    name = search_folder.identity(settings, spec)
    search_folder.check(folder, name, overwrite)
    if overwrite and folder.is_dir():
        search_folder.clear(folder)
    notes = [*inputs.notes, *notes]
    for note in notes:
        display.line(f"note: {note}")
    new = not (folder / "summary.json").exists()
    with cluster.connected(address, ray_temporary):
        workers = cluster.workers(settings)
        command = search_folder.command_line(folder, task, teacher, data, memory, device)
        summary = search_folder.begin(folder, name, settings, inputs, spec, notes, command)
        began, before = time.monotonic(), float(summary.get("wall_seconds", 0.0))

        def write(**news: Any) -> None:
            summary.update(news, wall_seconds=round(before + time.monotonic() - began, 2))
            files.write_json(folder / "summary.json", summary)

        state = "failed"
        try:
            write(workers=workers)
            _trials(settings, inputs, spec, folder, workers, summary, write, display)
            state = "done"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        except InputError:
            # The teacher's predictions showed it: no trial has begun, so nothing of a new search stays.
            state = "refused" if new else "failed"
            raise
        finally:
            display.close()
            if state == "refused":
                search_folder.clear(folder)
            else:
                write(state=state)
                results = load(folder)
                export_best(results, teacher)
                report.write(results)
    results = load(folder)
    if results.best is None:
        reasons = results.trials.loc[results.trials["state"] == "failed", "reason"].unique()
        why = f": {reasons[0]}" if len(reasons) else "; give it more time."
        raise FsdTuneError(f"{folder}: no trial has finished{why}", hint="The reasons of all are in its report.html.")
    return results


def _device(settings: Settings, device: str) -> str:
    return device if device != "auto" else ("cuda" if settings.resources.gpus_per_trial > 0 else "cpu")


def _trials(
    settings: Settings,
    inputs: Inputs,
    spec: Spec,
    folder: Path,
    workers: int,
    summary: dict[str, Any],
    write: Any,
    display: Display,
) -> None:
    """Build the memory, then run the trials that are still to do."""
    progress_file = folder / ".build-progress.json"
    name = str(folder.resolve())
    actor = prepared = None
    try:
        if set(settings.methods) & USES_TEACHER:
            cpus = cluster.largest_node_cpus()
            gpus = 1 if spec.device == "cuda" else 0
            actor = memory_actor.start(spec, name)
            prepared = memory_actor.build(actor, spec, cpus, gpus, progress_file, display.stage)
            _say_memory(prepared, display)
            # A continued search adds no pass; its own earlier one stays counted.
            passes = prepared.passes + ((summary["memory"] or {}).get("passes") or 0)
            score = prepared.teacher_metrics
            write(
                memory={**prepared.facts, "passes": passes, "passes_ever": prepared.passes_ever,
                        "path": str(prepared.memory or prepared.outputs)},
                teacher={"name": spec.teacher.path, "score": score[inputs.task.metric], "metrics": score},
            )  # fmt: skip
        past = search_folder.past(folder, settings)
        remaining = settings.search.trials - sum(trial.state != "running" for trial in past.values())
        if past:
            display.line(
                f"{len(past)} trials were begun before: {max(remaining, 0)} of {settings.search.trials} to do."
            )
        if remaining > 0:
            memory = None if prepared is None else (actor, prepared)
            _tune(settings, inputs, spec, folder, workers, summary, memory, past, remaining, display)
    finally:
        if actor is not None:
            memory_actor.leave(actor, name)


def _say_memory(prepared: Prepared, display: Display) -> None:
    facts = prepared.facts
    kept = f"{facts['centroids']} centroids" if "centroids" in facts else "no centroids needed"
    how = (
        f"built in {duration(facts['build_seconds'])} with one teacher pass over {facts['examples']} examples"
        if prepared.passes
        else f"reused ({prepared.passes_ever} teacher pass was paid for it before)"
    )
    display.line(f"teacher memory {facts['fingerprint']}: {how}, {kept}")


def _tune(
    settings: Settings,
    inputs: Inputs,
    spec: Spec,
    folder: Path,
    workers: int,
    summary: dict[str, Any],
    memory: tuple[Any, Prepared] | None,
    past: dict[int, Known],
    remaining: int,
    display: Display,
) -> None:
    from ray import tune

    from fsd_tune.scribe import Scribe
    from fsd_tune.searcher import TruthfulAsha, TruthfulSearcher
    from fsd_tune.trial import DistillTrial

    metric, reports = inputs.task.metric, summary["reports"]
    record = Record(settings, folder / "study.db", summary["name"], past)
    asha = settings.asha
    scheduler = TruthfulAsha(metric, reports, asha.grace, asha.reduction_factor, past) if asha else None
    progress = SearchProgress(display, settings.search.trials, metric, reports, list(distributions(settings)))
    results = load(folder)
    best = results.best
    progress.past(
        dict(results.trials["state"].value_counts()), None if best is None else (best["score"], best["number"])
    )
    scribe = Scribe(folder / "results", metric, reports, settings.search.judge_by, scheduler, progress)
    trainable = tune.with_parameters(
        DistillTrial,
        settings=settings,
        spec=spec,
        memory=memory,
        reports=reports,
        checkpoints=(*summary["rungs"], reports),
    )
    asked = {"cpu": settings.resources.cpus_per_trial, "gpu": settings.resources.gpus_per_trial}
    display.line(
        f"search: {remaining} trials, {workers} at a time on {spec.device} in {spec.precision}, "
        f"{len(inputs.train)} training and {len(inputs.dev)} dev examples"
    )
    try:
        tune.Tuner(
            tune.with_resources(trainable, asked),
            tune_config=tune.TuneConfig(
                num_samples=remaining,
                search_alg=TruthfulSearcher(record, metric, reports),
                scheduler=scheduler,
                max_concurrent_trials=workers,
                reuse_actors=True,
                time_budget_s=settings.search.time_budget_seconds,
                trial_dirname_creator=lambda trial: f"{trial.config['trial']:04d}_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name="results",
                storage_path=str(folder.resolve()),
                callbacks=[scribe],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=_FAILURES_PER_TRIAL),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            ),
        ).fit()
    except tune.TuneError as error:
        raise FsdTuneError(f"Ray Tune stopped the search: {str(error).splitlines()[0]}") from error
