"""Start a search from the best configurations of earlier ones (`search.warm_from`).

What was read is written into the new search's folder, so that a resumed search needs no earlier folder.
"""

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.report.results import Results, load
from fsd_tune.search.beliefs import FinishedTrials, expected_end
from fsd_tune.search.portfolio import EarlierTask, choose, coordinates
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.settings import loader
from fsd_tune.settings.comparing import EQUAL, settings_of_method
from fsd_tune.settings.configuration import adopt, distributions
from fsd_tune.settings.domains import Fixed, overlap
from fsd_tune.settings.judging import JUDGE_BY
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import OPTIMISATION, default
from fsd_tune.settings.overrides import flag_of
from fsd_tune.settings.shapes import SHAPE
from fsd_tune.storage import artifacts, json_file, layout
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.search_summary import SearchSummary
from fsd_tune.storage.uri import is_uri, local_path

# The longest portfolio of a method. `samplers.Suggester` says how many of its trials a search begins with.
_LONGEST = 10
_SETTING = "search.warm_from"
# An offer looks at few folders, because it is no reason to wait.
_MOST_LOOKED_AT, _MOST_OFFERED = 20, 4


class WarmTrial(BaseModel):
    """A trial of an earlier search that a new one begins with.

    Attributes:
        origin: the name of the search and the number of the trial, such as `cola trial 12`.
        score: its score there; of a trial that was stopped, the score that the sampler learned.
        config: its full configuration.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    origin: str
    score: float
    config: dict[str, str | int | float]


class WarmStart(BaseModel):
    """What a search learns from earlier ones: the content of `warm_start.json`.

    Attributes:
        searches: the folders that were read, as they were given.
        trials: the trials of the portfolio, the first to try first; in a comparison of methods those of each method.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    searches: list[str] = []
    trials: list[WarmTrial] = []

    def write(self, folder: Path) -> None:
        """Write the file into a new search's folder, unless there is nothing to write.

        Args:
            folder: the search's folder.
        """
        if self.trials:
            artifacts.write_json(folder / layout.WARM_START, self.model_dump(mode="json"))


@dataclass(frozen=True)
class _Earlier:
    """The usable trials of one earlier search.

    Attributes:
        name: of the search.
        trials: its usable trials, in the order of their numbers.
        notes: notes for the user, one line each.
    """

    name: str
    trials: list[WarmTrial]
    notes: list[str]


def read(folder: Path) -> WarmStart:
    """Return what a search has learned from earlier ones; nothing if it started without them.

    Args:
        folder: the search's folder.

    Raises:
        InputError: the file is damaged, so that a resumed search would not go on as it began.
    """
    path = folder / layout.WARM_START
    try:
        return WarmStart.model_validate(json_file.read_mapping(path))
    except FileNotFoundError:
        return WarmStart()
    except (OSError, ValueError) as error:
        reason = "it is not what a search writes" if isinstance(error, ValidationError) else str(error)
        raise InputError(
            f"{path}: cannot be read ({reason}); bring it back from a copy, or delete it to go on without the earlier "
            "searches."
        ) from None


@dataclass(frozen=True)
class Collected:
    """What was read of earlier searches.

    Attributes:
        warm_start: what the new search learns.
        notes: notes for the user, one line each.
        problems: a line for each folder that cannot be used at all.
    """

    warm_start: WarmStart
    notes: list[str]
    problems: list[str]


def collect(settings: Settings, metric: str, folders: Sequence[str]) -> Collected:
    """Read earlier searches, and choose the configurations that the new search tries first.

    Args:
        settings: the settings of the new search.
        metric: its metric; empty if it is not known.
        folders: the folders of the earlier searches, or their URIs.
    """
    problems = ProblemCollector()
    earlier: list[_Earlier] = []
    for folder in folders:
        with problems.collect():
            earlier.append(_read_search(settings, metric, folder))
    notes = [note for search in earlier for note in search.notes]
    if earlier:
        origins = ", ".join(f"{search.name} ({len(search.trials)} trials)" for search in earlier)
        notes.insert(0, f"warm start: after the defaults come configurations that were good in {origins}.")
    trials = list(portfolios(settings, [search.trials for search in earlier]))
    return Collected(WarmStart(searches=list(folders), trials=trials), notes, problems.lines)


def offer(settings: Settings, output: str | Path) -> str:
    """Return a line that offers the finished searches beside a new one, if their spaces are like its own.

    Args:
        settings: the settings of the new search.
        output: its folder or URI.

    Returns:
        The line; empty if there is none, if the new search names its earlier ones, or if its folder is not on a disk.
    """
    if settings.search.warm_from != "auto" or is_uri(output):
        return ""
    own = local_path(output)
    try:
        summaries = own.parent.glob(f"*/{layout.SUMMARY}")
        newest_first = sorted(summaries, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return ""
    folders = [path.parent for path in newest_first[:_MOST_LOOKED_AT] if path.parent.name != own.name]
    # The flag separates folders by commas.
    like = [str(folder) for folder in folders if "," not in str(folder) and _is_like(settings, folder)][:_MOST_OFFERED]
    if not like:
        return ""
    words = shlex.quote(",".join(like))
    return f"earlier searches of a like space are there; to start from them: {flag_of(_SETTING)} {words}"


def _is_like(settings: Settings, folder: Path) -> bool:
    """Return whether a folder holds a finished search that may have trials in this space."""
    try:
        if SearchSummary.read(folder).state != "done":
            return False
        there = loader.load(folder / layout.SETTINGS, stored=True)
    except (InputError, OSError, ValueError):
        return False
    own = [name for name in distributions(settings) if name != "method"]
    common = set(own) & set(distributions(there))
    if not common or not set(settings.methods) & set(there.methods):
        return False
    fixed = {name: Fixed(value=default(there.methods[0], name)) for name in OPTIMISATION}
    domains = fixed | there.space
    if not all(
        set(settings.student.possible(name)) & set(there.student.possible(name)) for name in own if name in SHAPE
    ):
        return False
    return all(overlap(settings.space[name], domains[name]) for name in own if name in domains)


def _read_search(settings: Settings, metric: str, folder: str) -> _Earlier:
    """Return the usable trials of an earlier search.

    Raises:
        InputError: it cannot be used at all.
    """
    try:
        results = load(folder, judge_by=JUDGE_BY)
    except InputError as error:
        raise InputError(f"{_SETTING}: {error.problems[0].rstrip('.')}.") from None
    if results.lower_is_better:
        raise InputError(
            f"{_SETTING}: {folder} looks for the lowest {results.metric}, but must look for the highest value."
        )
    name = results.summary.name or results.folder.resolve().name
    values = results.values()
    states = dict(zip(results.trials["number"], results.trials["state"], strict=True))
    scores = learned_scores(
        {int(number): TrialRecord({}, str(state), values.get(number, {})) for number, state in states.items()}
    )
    rows = {int(row["number"]): row for row in results.trials.to_dict("records")}
    trials: list[WarmTrial] = []
    outside: Counter[str] = Counter()
    for number, score in scores.items():
        config = {key: rows[number][key] for key in results.hyperparameters if _is_present(rows[number][key])}
        config = _fixed_shape(settings, results) | config
        wrong = adopt(settings, config)[1]
        if wrong:
            outside[wrong] += 1
        else:
            trials.append(WarmTrial(origin=f"{name} trial {number}", score=score, config=config))
    reasons = ", ".join(f"{key} of {count}" for key, count in outside.most_common(3))
    if not scores:
        raise InputError(f"{_SETTING}: {folder} has no trial that ended with a score.")
    if not trials:
        raise InputError(f"{_SETTING}: none of the {len(scores)} trials of {folder} is in this space: {reasons}.")
    notes: list[str] = []
    if results.problems:
        more = f" and {len(results.problems) - 1} more" if len(results.problems) > 1 else ""
        notes.append(f"{folder} is damaged ({results.problems[0].rstrip('.')}{more}); the rest is used.")
    if results.summary.state != "done":
        notes.append(f"{folder} has not run to its end; its {len(scores)} trials that have ended are used.")
    if metric and results.metric != metric:
        notes.append(
            f"{folder} was judged by {results.metric}, this search by {metric}; only the order of its trials is used."
        )
    if outside:
        count = outside.total()
        notes.append(f"{count} of the {len(scores)} trials of {folder} are outside of this space: {reasons}.")
    return _Earlier(name, trials, [f"{_SETTING}: {note}" for note in notes])


def _fixed_shape(settings: Settings, results: Results) -> dict[str, Any]:
    """Return what an earlier search fixed of its students' shape and this one searches."""
    summary = results.summary.student.as_json() or {}
    there = results.settings.get("student")
    there = there if isinstance(there, dict) else {}
    values = {name: there.get(name, summary.get(name)) for name in settings.student.choices}
    return {name: value for name, value in values.items() if isinstance(value, int | str)}


def learned_scores(trials: Mapping[int, TrialRecord]) -> dict[int, float]:
    """Return the score of each trial as a sampler learns it at the end of a search.

    Args:
        trials: trials by number; those that have neither finished nor been stopped, or have a value that is not
            finite, are left out.
    """
    usable = {
        number: trial
        for number, trial in sorted(trials.items())
        if trial.state in (TrialState.FINISHED, TrialState.STOPPED)
        and trial.values
        and all(map(math.isfinite, trial.values.values()))
    }
    finished = FinishedTrials()
    finished.update(usable)
    scores: dict[int, float] = {}
    for number, trial in usable.items():
        belief = finished.beliefs.get(number)
        score = expected_end(trial, finished.median_gains) if belief is None else belief.score
        assert score is not None
        scores[number] = score
    return scores


def portfolios(settings: Settings, searches: Sequence[Sequence[WarmTrial]]) -> Iterator[WarmTrial]:
    """Yield the trials to begin with: one portfolio, or one for each method that is compared.

    Args:
        settings: the settings of the new search.
        searches: the trials of each earlier search; those outside of the new space are left out.
    """
    if settings.search.compare_methods != EQUAL:
        yield from _portfolio(settings, searches)
        return
    for method in sorted(settings.methods):
        yield from _portfolio(settings_of_method(settings, method), searches)


def _portfolio(settings: Settings, searches: Sequence[Sequence[WarmTrial]]) -> Iterator[WarmTrial]:
    space = distributions(settings)
    fitting: list[list[WarmTrial]] = []
    tasks: list[EarlierTask] = []
    for trials in searches:
        adopted = [(trial, *adopt(settings, trial.config)) for trial in trials]
        own = [(trial, params) for trial, params, outside in adopted if params and not outside]
        if own:
            fitting.append([trial for trial, _ in own])
            points = coordinates(space, [params for _, params in own])
            tasks.append(EarlierTask(points, [trial.score for trial, _ in own]))
    for task, index in choose(tasks, _LONGEST):
        yield fitting[task][index]


def _is_present(value: Any) -> bool:
    return value is not None and value == value
