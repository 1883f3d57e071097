"""Read and check the inputs of a confirmation: a finished search, its best configurations, baselines and seeds."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.cluster import accelerator
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.evaluation.confirm.counts import SeedCounts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.report.compare import differences
from fsd_tune.report.results import Results, load
from fsd_tune.search.folder import UNDO, describe_identity, recorded_task
from fsd_tune.settings import loader
from fsd_tune.settings.domains import Choice
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, OPTIMISATION, USES_TEACHER, default
from fsd_tune.settings.problems import listed
from fsd_tune.settings.shapes import SHAPE
from fsd_tune.storage import json_file, layout, open_folder
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.layout import TrialState
from fsd_tune.training.inputs import Inputs, load_inputs

# The first selection seed and the first fresh seed, far from the seeds that people choose for a search.
SELECTION_FROM = 1001
FRESH_FROM = 2001


@dataclass(frozen=True)
class Configuration:
    """A configuration that is trained on several seeds.

    Attributes:
        label: its name in messages and tables.
        config: flat and complete: `method`, the searched keys of the student's shape, the method's hyperparameters and
            those of optimisation.
        trial: number of its trial in the search; None for a baseline.
        score: its score in the search; None for a baseline that no search scored.
        remark: the origin of a baseline.
    """

    label: str
    config: dict[str, Any]
    trial: int | None = None
    score: float | None = None
    remark: str = ""


@dataclass(frozen=True)
class FinishedSearch:
    """A finished search, read from its folder.

    Attributes:
        folder: its folder.
        results: its trials and summary.
        settings: its settings.
    """

    folder: Path
    results: Results
    settings: Settings

    @property
    def seed(self) -> int:
        """The seed that the search ran with."""
        return self.settings.search.seed

    def configurations(self, method: str | None = None) -> list[Configuration]:
        """Return the different configurations of finished trials, best first.

        Args:
            method: the only method to return; None for all methods.

        Returns:
            The configurations with their trials and scores.
        """
        configurations: list[Configuration] = []
        for _, row in self.results.trials.iterrows():
            if row["state"] != TrialState.FINISHED or row["score"] != row["score"]:
                continue
            file = self.folder / layout.RESULTS / str(row["folder"]) / layout.TRIAL_CONFIG
            recorded = json_file.read_mapping(file)["config"]
            # Ray sorts the names; people read the method first.
            config = {name: recorded[name] for name in ("method", *SHAPE, *HYPERPARAMETERS) if name in recorded}
            if method not in (None, config["method"]) or any(config == other.config for other in configurations):
                continue
            label = f"trial {row['number']} ({config['method']})"
            configurations.append(Configuration(label, config, int(row["number"]), float(row["score"])))
        return configurations


@dataclass(frozen=True)
class ConfirmationPlan:
    """The checked inputs of a confirmation.

    Attributes:
        searched: the search.
        inputs: the search's task, data and teacher.
        spec: the inputs of its teacher memory.
        candidates: its best configurations, best first.
        tuned: the best configurations of a search over kd, of which one becomes the baseline in the same way; empty for
            kd at the defaults.
        counts: numbers of configurations and seeds.
        selection_seeds: seeds of all candidates; the best mean on them wins.
        used_seeds: seeds that a search ran with.
        notes: remarks for the user.
    """

    searched: FinishedSearch
    inputs: Inputs
    spec: MemorySpec
    candidates: tuple[Configuration, ...]
    tuned: tuple[Configuration, ...]
    counts: SeedCounts
    selection_seeds: tuple[int, ...]
    used_seeds: frozenset[int]
    notes: tuple[str, ...]

    def fresh_seeds(self, count: int) -> tuple[int, ...]:
        """Return seeds that selected nothing, neither a configuration in a search nor the winner.

        Args:
            count: their number. More seeds begin with the same ones, so that their runs are reused.
        """
        return _seeds(FRESH_FROM, count, self.used_seeds)


def plan_confirmation(
    folder: Path | str | ExperimentFolder,
    counts: SeedCounts,
    baseline: Path | str | None,
    address: str | None = None,
) -> ConfirmationPlan:
    """Read and check the inputs of a confirmation.

    Args:
        folder: the folder of the search, a path or a URI.
        counts: numbers of configurations and seeds.
        baseline: the folder of a search over kd; None for kd at its defaults.
        address: the address of the Ray cluster that will train the runs; None for a local instance.

    Returns:
        The checked inputs, with the competing configurations, baselines and seeds.

    Raises:
        InputError: the message lists all problems of the search and the baseline, and all inputs that have changed.
    """
    experiment = open_folder.open_experiment(folder)
    problems = ProblemCollector(counts.problems())
    searched: FinishedSearch | None = None
    loaded: tuple[Inputs, MemorySpec, list[str]] | None = None
    with problems.collect():
        searched = read_finished_search(experiment.folder)
    kd = _read_baseline(baseline, searched, problems)
    if searched is not None:
        with problems.collect():
            loaded = _load_unchanged(searched, experiment, address)
    problems.raise_any()
    assert searched is not None and loaded is not None
    inputs, spec, notes = loaded
    used_seeds = frozenset({searched.seed} | ({kd.seed} if kd is not None else set()))
    configurations = searched.configurations()
    if len(configurations) < counts.top:
        notes.append(f"--top {counts.top}: the search has {len(configurations)} different finished configurations.")
    return ConfirmationPlan(
        searched=searched,
        inputs=inputs,
        spec=spec,
        candidates=tuple(configurations[: counts.top]),
        tuned=() if kd is None else _tuned(searched, kd, counts.top, notes),
        counts=counts,
        selection_seeds=_seeds(SELECTION_FROM, counts.selection, used_seeds),
        used_seeds=used_seeds,
        notes=tuple(notes),
    )


def _read_baseline(
    folder: Path | str | None, searched: FinishedSearch | None, problems: ProblemCollector
) -> FinishedSearch | None:
    """Return the search over kd, and add its problems to `problems`."""
    if folder is None:
        return None
    kd: FinishedSearch | None = None
    with problems.collect(), open_folder.open_for_reading(folder) as experiment:
        kd = read_finished_search(experiment.folder, "--baseline: ")
    if kd is not None:
        if not kd.configurations("kd"):
            problems.add(f"--baseline: {kd.folder} has no finished trial of method kd.")
        if searched is not None:
            problems.add(*_baseline_problems(searched, kd))
    return kd


def baselines(winner: Configuration, tuned: Configuration | None) -> tuple[list[Configuration], list[str]]:
    """Return the baselines of the winner: `ce`, and `kd` tuned or at its defaults.

    `ce`, and `kd` at its defaults, train a student of the winner's shape with the winner's optimisation
    hyperparameters, so only the loss differs.

    Args:
        winner: the winner on the selection seeds.
        tuned: the tuned kd; None for kd at its defaults.

    Returns:
        The baselines, and notes about those that were left out.
    """
    shared = {name: winner.config[name] for name in (*SHAPE, *OPTIMISATION) if name in winner.config}
    remark = "with the winner's optimisation hyperparameters"
    candidates = [Configuration("ce", {"method": "ce", **shared}, remark=remark)]
    defaults = {name: default("kd", name) for name in METHODS["kd"].hyperparameters}
    kd = Configuration("kd (defaults, untuned)", {"method": "kd", **defaults, **shared}, remark=remark)
    candidates.append(tuned or kd)
    equal_labels = [candidate.label for candidate in candidates if candidate.config == winner.config]
    notes = [f"{label} is the winner itself, so it is not a baseline." for label in equal_labels]
    return [candidate for candidate in candidates if candidate.config != winner.config], notes


def read_finished_search(folder: Path, prefix: str = "") -> FinishedSearch:
    """Read a finished search from its folder.

    Args:
        folder: the search's folder.
        prefix: text before each problem.

    Returns:
        The search.

    Raises:
        InputError: the folder holds no search, or its search is not finished, has no finished trial, or was written by
            an earlier version.
    """
    try:
        results = load(folder, described=True)
        settings = loader.load(folder / layout.SETTINGS, stored=True)
    except InputError as error:
        raise InputError([f"{prefix}{problem}" for problem in error.problems], error.hint) from None
    summary = results.summary
    problems = []
    if summary.state != "done":
        state = summary.state or "in an unknown state"
        problems.append(f"{prefix}{folder} is {state}, but must be a finished search; continue it: {results.command}")
    elif not {"task", "teacher", "data", "memory", "device"} <= set(summary.inputs) or not {
        "settings", "teacher", "training split", "dev split"
    } <= set(summary.identity):  # fmt: skip
        problems.append(
            f"{prefix}{folder} does not record its inputs, because an earlier version wrote it; run the same search "
            f"command again, which adds them and trains nothing: {results.command}"
        )
    elif results.best is None:
        problems.append(f"{prefix}{folder} has no finished trial.")
    if problems:
        raise InputError(problems)
    return FinishedSearch(folder, results, settings)


def _seeds(start: int, count: int, used_seeds: AbstractSet[int]) -> tuple[int, ...]:
    """Return the first `count` whole numbers from `start` that no search ran with.

    A larger `count` returns the same seeds first, so that their runs are reused.
    """
    return tuple([seed for seed in range(start, start + count + len(used_seeds)) if seed not in used_seeds][:count])


def _load_unchanged(
    searched: FinishedSearch, experiment: ExperimentFolder, address: str | None
) -> tuple[Inputs, MemorySpec, list[str]]:
    """Load the search's inputs again, and refuse them if they have changed since the search."""
    settings = searched.settings
    recorded = searched.results.summary.inputs
    data = None if recorded["data"] is None else Path(recorded["data"])
    inputs = load_inputs(settings, recorded_task(recorded), str(recorded["teacher"]), data)
    changed = differences(searched.results.summary.identity, describe_identity(settings, inputs))
    if changed:
        raise InputError([f"{searched.folder}: {difference}." for difference in changed], UNDO)
    memory, remote = experiment.memory_folder(recorded["memory"])
    chosen = accelerator.choose(settings, str(recorded["device"]), address)
    memory_settings = settings
    if not set(settings.methods) & USES_TEACHER:
        # A search of ce alone needs no teacher, but its kd baseline does.
        memory_settings = settings.model_copy(update={"method": Choice(choice=("ce", "kd"))})
    spec = MemorySpec.from_inputs(
        memory_settings, inputs, memory, chosen.device, remote=remote, native_bf16=chosen.native_bf16
    )
    return inputs, spec, [*inputs.notes, *spec.notes]


def _baseline_problems(searched: FinishedSearch, kd: FinishedSearch) -> list[str]:
    """Return why a search over kd cannot be the baseline: another task, teacher, data or student."""
    summary = searched.results.summary
    kd_summary = kd.results.summary
    prefix = f"--baseline: {kd.folder}"
    if kd_summary.inputs["task"] != summary.inputs["task"]:
        return [f"{prefix} searched task {kd_summary.inputs['task']}, but must be {summary.inputs['task']}."]
    problems = []
    if kd_summary.identity.get("task") != summary.identity.get("task"):
        problems.append(
            f"{prefix} searched another task {summary.inputs['task']}, with different labels, columns or metrics."
        )
    for section in ("student", "data"):
        expected = getattr(searched.settings, section).model_dump(mode="json")
        actual = getattr(kd.settings, section).model_dump(mode="json")
        problems += [
            f"{prefix} has {section}.{key} {_words(actual[key])}, but must have {_words(expected[key])} as "
            f"{searched.folder}."
            for key in expected
            if expected[key] != actual[key]
        ]
    same_data_settings = searched.settings.data == kd.settings.data
    for part, names in (("teacher", ["teacher"]), ("data", ["training split", "dev split"])):
        is_different = any(kd_summary.identity[name] != summary.identity[name] for name in names)
        if is_different and (part == "teacher" or same_data_settings):
            actual_path = kd_summary.inputs[part] or "the hub"
            expected_path = summary.inputs[part] or "the hub"
            if actual_path == expected_path:
                problems.append(f"{prefix}: its {part} {actual_path} has changed between the searches.")
            else:
                problems.append(f"{prefix}: its {part} is {actual_path}, but must be {expected_path}.")
    return problems


def _words(value: Any) -> Any:
    """Return a value of a setting; a choice by its values."""
    return listed(value["choice"]) if isinstance(value, dict) else value


def _tuned(searched: FinishedSearch, kd: FinishedSearch, top: int, notes: list[str]) -> tuple[Configuration, ...]:
    """Return the best kd configurations of a search, best first."""
    trials = len(searched.results.trials)
    kd_trials = int((kd.results.trials["method"] == "kd").sum())
    if trials != kd_trials:
        notes.append(f"--baseline: kd was tuned in {kd_trials} trials, {searched.folder} has {trials}.")
    return tuple(
        Configuration(f"kd, trial {best.trial} of {kd.folder.name}", best.config, None, best.score)
        for best in kd.configurations("kd")[:top]
    )
