"""Write the files that describe a search into its folder, before its trials start."""

import os
import platform
import shlex
import time
from collections.abc import Mapping
from typing import Any

from fsd_tune.memory.build import BuiltMemory
from fsd_tune.progress import duration
from fsd_tune.search.plan import SearchPlan
from fsd_tune.settings import loader
from fsd_tune.settings.judging import JUDGE_BY
from fsd_tune.settings.schema import Asha
from fsd_tune.settings.shapes import described
from fsd_tune.storage import artifacts, files, layout
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.search_summary import SearchSummary
from fsd_tune.versions import versions


def write_description(plan: SearchPlan) -> SearchSummary:
    """Create a search's folder if needed, and write settings, command, versions and summary into it.

    Args:
        plan: the plan of the search. Figures in the summary of an earlier part are kept.

    Returns:
        The summary that was written.
    """
    from fsd_tune.search.asha import rungs  # This module imports Ray.

    settings, spec = plan.settings, plan.spec
    inputs = plan.inputs
    folder = plan.experiment.folder
    has_begun = (folder / layout.SUMMARY).exists()
    summary = SearchSummary.read(folder) if has_begun else SearchSummary()
    files.make_folder(folder)
    if not has_begun:
        plan.warm_start.write(folder)
    artifacts.write_text(folder / layout.SETTINGS, loader.dump(settings))
    artifacts.write_text(folder / layout.COMMAND, command_line(plan.experiment, plan.given) + "\n")
    artifacts.write_json(folder / layout.VERSIONS, versions())
    asha = settings.asha
    name = folder.resolve().name
    summary.update(
        identity=plan.identity,
        inputs=plan.given,
        name=summary.name or name,
        # Make the group unique, because a W&B project can have searches of other folders with the same name.
        group=summary.group or f"{name}-{artifacts.digest(plan.identity, time.time())[:6]}",
        task=inputs.task.id,
        metric=inputs.task.metric,
        mode="max",
        state="running",
        trials=settings.search.trials,
        reports=(asha or Asha()).reports,
        rungs=rungs(asha.grace, asha.reduction_factor, asha.reports) if asha else [],
        judge_by=JUDGE_BY,
        select_on=settings.search.model_dump(mode="json")["select_on"],
        selection_examples=len(inputs.dev),
        train_examples=len(inputs.train),
        precision=spec.precision,
        device=spec.device,
        student=described(settings.student),
        machine=f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}",
        notes=list(plan.notes),
    )
    summary.forget("ended_by", "dev")
    summary.started = summary.started or time.time()
    if not summary.memory:
        summary.update(memory=None)
    if not summary.teacher:
        summary.update(teacher={"name": inputs.teacher.path})
    summary.write(folder)
    plan.experiment.sync_all()
    return summary


def command_line(experiment: ExperimentFolder, given: Mapping[str, Any]) -> str:
    """Return the command that starts a search, even if the search was started from Python.

    Args:
        experiment: the search's folder.
        given: the inputs of the search, as `folder.record_inputs` returns them.
    """
    task_file = given.get("task_file")
    task_words = ["--task", given["task"]] if task_file is None else ["--task-file", task_file]
    words = ["fsd-tune", "search", experiment.folder / layout.SETTINGS, *task_words, "--teacher", given["teacher"]]
    words += ["--data", given["data"]] if given["data"] is not None else []
    words += ["--memory", given["memory"]] if given["memory"] is not None else []
    words += ["--device", given["device"]] if given["device"] != "auto" else []
    return shlex.join(map(str, [*words, "--output", experiment.name]))


def memory_line(prepared: BuiltMemory) -> str:
    """Return a line with the name of a teacher memory, its origin, and what it cost.

    Args:
        prepared: the memory of the search.
    """
    facts = prepared.facts.to_json()
    examples = f"{facts['examples']:,} examples"
    if facts["live"]:
        origin = f"made in {duration(facts['build_seconds'])} from {examples}; the teacher runs live"
    elif prepared.passes:
        origin = f"built in {duration(facts['build_seconds'])} with one teacher pass over {examples}"
    else:
        origin = f"reused (its {prepared.passes_ever} teacher pass ran before)"
    centroids = f"{facts['centroids']} centroids" if "centroids" in facts else "no centroids needed"
    return f"teacher memory {facts['fingerprint']}: {origin}, {centroids}"
