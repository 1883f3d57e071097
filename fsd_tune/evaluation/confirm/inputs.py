"""What a confirmation works on: a finished search, unchanged; its best configurations, baselines and seeds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.cluster import connection
from fsd_tune.errors import InputError
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.report.compare import differences
from fsd_tune.report.results import Results, load
from fsd_tune.search.folder import UNDO, describe_identity, recorded_task
from fsd_tune.settings import loader
from fsd_tune.settings.domains import Choice
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, OPTIMISATION, USES_TEACHER, default
from fsd_tune.storage import open_folder
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.training.inputs import Inputs, load_inputs

# Selection seeds count from the first, fresh ones from the second: far from the seeds that people give a search.
SELECTION_FROM, FRESH_FROM = 1001, 2001
MOST_SEEDS = 900


@dataclass(frozen=True)
class Configuration:
    """One configuration that is trained on several seeds.

    Attributes:
        label: how it is called.
        config: flat and whole: `method`, its hyperparameters and the optimisation ones.
        trial: its number in the search; None for a baseline.
        score: what the search said of it; None for a baseline that no search scored.
        remark: where a baseline comes from.
    """

    label: str
    config: dict[str, Any]
    trial: int | None = None
    score: float | None = None
    remark: str = ""


@dataclass(frozen=True)
class Searched:
    """A finished search, read back from its folder."""

    folder: Path
    results: Results
    settings: Settings

    @property
    def seed(self) -> int:
        """The seed that the search ran with."""
        return self.settings.search.seed

    def configurations(self, method: str | None = None) -> list[Configuration]:
        """The finished trials' configurations, best first, each once; of one method where that is given."""
        found: list[Configuration] = []
        for _, row in self.results.trials.iterrows():
            if row["state"] != "finished" or row["score"] != row["score"]:
                continue
            params = self.folder / "results" / str(row["folder"]) / "config.json"
            held = json.loads(params.read_text(encoding="utf-8"))["config"]
            # Ray sorts the names; people read the method first.
            config = {name: held[name] for name in ("method", *HYPERPARAMETERS) if name in held}
            wanted = method is None or config["method"] == method
            if wanted and all(config != other.config for other in found):
                label = f"trial {row['number']} ({config['method']})"
                found.append(Configuration(label, config, int(row["number"]), float(row["score"])))
        return found


@dataclass(frozen=True)
class Plan:
    """All that a confirmation needs, checked.

    Attributes:
        searched: the search.
        inputs, spec: its data and what its teacher memory depends on.
        candidates: its best configurations, best first.
        baseline: the tuned kd to compare with; None for kd at the defaults.
        selection_seeds: common to all candidates; the best mean on them wins.
        fresh_seeds: that chose nothing: neither a configuration in a search nor the winner.
        notes: what a user should know.
    """

    searched: Searched
    inputs: Inputs
    spec: MemorySpec
    candidates: tuple[Configuration, ...]
    baseline: Configuration | None
    selection_seeds: tuple[int, ...]
    fresh_seeds: tuple[int, ...]
    notes: tuple[str, ...]


def plan(
    output: Path | str | ExperimentFolder,
    top: int,
    seeds: int,
    fresh_seeds: int,
    baseline: Path | str | None,
    address: str | None = None,
) -> Plan:
    """Read and check everything; `address` is of the Ray cluster that runs are to be trained on.

    Raises:
        InputError: with every problem of the search, of the baseline, and of what has changed since.
    """
    where = open_folder.open_experiment(output)
    problems = _counts(top, seeds, fresh_seeds)
    searched = kd = gathered = None
    try:
        searched = read(where.folder)
    except InputError as error:
        problems += error.problems
    if baseline is not None:
        try:
            with open_folder.open_for_reading(baseline) as other:
                kd = read(other.folder, "--baseline: ")
        except InputError as error:
            problems += error.problems
    if kd is not None:
        if not kd.configurations("kd"):
            problems.append(f"--baseline: {kd.folder} has no finished trial of method kd.")
        problems += _unlike(searched, kd) if searched is not None else []
    hint = ""
    if searched is not None:
        try:
            gathered = _gather(searched, where, address)
        except InputError as error:
            problems += error.problems
            hint = error.hint
    if problems or searched is None or gathered is None:
        raise InputError(problems, hint)
    inputs, spec, notes = gathered
    taken = {searched.seed} | ({kd.seed} if kd is not None else set())
    found = searched.configurations()
    if len(found) < top:
        notes.append(f"--top {top}: the search has {len(found)} different finished configurations.")
    return Plan(
        searched=searched,
        inputs=inputs,
        spec=spec,
        candidates=tuple(found[:top]),
        baseline=None if kd is None else _tuned(searched, kd, notes),
        selection_seeds=_seeds(SELECTION_FROM, seeds, taken),
        fresh_seeds=_seeds(FRESH_FROM, fresh_seeds, taken),
        notes=tuple(notes),
    )


def baselines(winner: Configuration, tuned: Configuration | None) -> tuple[list[Configuration], list[str]]:
    """What the winner is compared with: `ce`, and `kd` tuned or at its defaults. Notes say what was left out.

    `ce`, and `kd` at its defaults, train with the winner's optimisation hyperparameters, so that what differs is the
    loss.
    """
    shared = {name: winner.config[name] for name in OPTIMISATION}
    remark = "with the winner's optimisation hyperparameters"
    made = [Configuration("ce", {"method": "ce", **shared}, remark=remark)]
    defaults = {name: default("kd", name) for name in METHODS["kd"].hyperparameters}
    kd = Configuration("kd (defaults, untuned)", {"method": "kd", **defaults, **shared}, remark=remark)
    made.append(tuned or kd)
    notes = [f"{one.label} is the winner itself, so it is no baseline." for one in made if one.config == winner.config]
    return [one for one in made if one.config != winner.config], notes


def read(folder: Path, prefix: str = "") -> Searched:
    """A finished search.

    Args:
        folder: the search's.
        prefix: what problems begin with.

    Raises:
        InputError: no search, not finished, of an earlier version, or without a finished trial.
    """
    try:
        results = load(folder)
        settings = loader.load(folder / "settings.yaml")
    except InputError as error:
        raise InputError([f"{prefix}{problem}" for problem in error.problems], error.hint) from None
    summary, problems = results.summary, []
    if summary.state != "done":
        state = summary.state or "of unknown state"
        problems.append(f"{prefix}{folder} is {state}, but must be a finished search; continue it: {results.command}")
    elif not {"task", "teacher", "data", "memory", "device"} <= set(summary.inputs) or not {
        "settings", "teacher", "training split", "dev split"
    } <= set(summary.identity):  # fmt: skip
        problems.append(
            f"{prefix}{folder} does not record its inputs, as searches of an earlier version do; the same search "
            f"command again adds them and trains nothing: {results.command}"
        )
    elif results.best is None:
        problems.append(f"{prefix}{folder} has no finished trial.")
    if problems:
        raise InputError(problems)
    return Searched(folder, results, settings)


def _counts(top: int, seeds: int, fresh_seeds: int) -> list[str]:
    problems = [] if top >= 1 else [f"--top: found {top}, but must be at least 1."]
    for flag, count, least in (("--seeds", seeds, 1), ("--fresh-seeds", fresh_seeds, 2)):
        if not least <= count <= MOST_SEEDS:
            problems.append(f"{flag}: found {count}, but must be in {least}..{MOST_SEEDS}.")
    return problems


def _seeds(start: int, count: int, taken: set[int]) -> tuple[int, ...]:
    """The first `count` whole numbers from `start` that no search ran with: with more, the first stay the same."""
    return tuple([seed for seed in range(start, start + count + len(taken)) if seed not in taken][:count])


def _gather(searched: Searched, where: ExperimentFolder, address: str | None) -> tuple[Inputs, MemorySpec, list[str]]:
    """The search's inputs loaded again, refused when they are not what was searched."""
    settings, given, folder = searched.settings, searched.results.summary.inputs, searched.folder
    data = None if given["data"] is None else Path(given["data"])
    inputs = load_inputs(settings, recorded_task(given), given["teacher"], data)
    memory, remote = where.memory_folder(given["memory"])
    device, elsewhere = connection.device_for(settings, given["device"], address), connection.elsewhere(address)
    with_kd = settings
    if not set(settings.methods) & USES_TEACHER:
        # A search of ce alone has no use for a teacher; its kd baseline has.
        with_kd = settings.model_copy(update={"method": Choice(choice=("ce", "kd"))})
    spec = MemorySpec.from_inputs(with_kd, inputs, memory, device, remote=remote, elsewhere=elsewhere)
    now, then = describe_identity(settings, spec), searched.results.summary.identity
    changed = differences(then, now)
    if changed:
        raise InputError([f"{folder}: {difference}." for difference in changed], UNDO)
    return inputs, spec, [*inputs.notes, *spec.notes]


def _unlike(searched: Searched, kd: Searched) -> list[str]:
    """What makes a search's configuration no baseline: another task, teacher, data or student."""
    here, there = searched.results.summary, kd.results.summary
    place = f"--baseline: {kd.folder}"
    if there.inputs["task"] != here.inputs["task"]:
        return [f"{place} searched task {there.inputs['task']}, but must be {here.inputs['task']}."]
    problems = []
    if there.identity.get("task") != here.identity.get("task"):
        problems.append(f"{place} searched a task {here.inputs['task']} of other labels, columns or metrics.")
    for section in ("student", "data"):
        own = getattr(searched.settings, section).model_dump(mode="json")
        other = getattr(kd.settings, section).model_dump(mode="json")
        problems += [
            f"{place} has {section}.{key} {other[key]}, but must have {own[key]} as {searched.folder}."
            for key in own
            if own[key] != other[key]
        ]
    same_data_settings = searched.settings.data == kd.settings.data
    for part, names in (("teacher", ["teacher"]), ("data", ["training split", "dev split"])):
        differ = any(there.identity[name] != here.identity[name] for name in names)
        if differ and (part == "teacher" or same_data_settings):
            found, must = (summary.inputs[part] or "the hub" for summary in (there, here))
            said = f"is {found}, but must be {must}" if found != must else f"{found} has changed between the searches"
            problems.append(f"{place}: its {part} {said}.")
    return problems


def _tuned(searched: Searched, kd: Searched, notes: list[str]) -> Configuration:
    """The best kd of a search: the winner of its own confirmation where there is one, else its best trial."""
    best = kd.configurations("kd")[0]
    label, remark = "kd (tuned)", f"trial {best.trial} of {kd.folder}, its best of kd"
    held = kd.results.confirmation.get("winner")
    confirmed = [one for one in kd.configurations("kd") if isinstance(held, dict) and one.config == held.get("config")]
    if confirmed:
        best, remark = confirmed[0], f"trial {confirmed[0].trial} of {kd.folder}, the winner of its confirmation"
    elif kd.folder.resolve() != searched.folder.resolve():
        notes.append(
            f"--baseline: {kd.folder} was not confirmed itself: its best trial is taken as its search left it."
        )
    own, other = len(searched.results.trials), int((kd.results.trials["method"] == "kd").sum())
    if own != other:
        notes.append(f"--baseline: kd was tuned in {other} trials, {searched.folder} has {own}.")
    return Configuration(label, best.config, None, best.score, remark)
