"""What `fsd-tune analyze` works on, checked before any model runs: models, dev sample, memory, output folder."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_tune.data import splits
from fsd_tune.data.batching import TokenizedSplit, tokenize
from fsd_tune.data.splits import Task, TaskLike
from fsd_tune.errors import InputError
from fsd_tune.memory import teacher_memory as memory
from fsd_tune.memory.spec import fingerprint
from fsd_tune.models.folder import check_output, made_in_search, record_of
from fsd_tune.models.layers import Pair, global_pair, layer_pairs
from fsd_tune.models.loading import ModelInfo, label_order, load_tokenizer, read_model_info
from fsd_tune.search.folder import recorded_inputs, recorded_task
from fsd_tune.storage import artifacts
from fsd_tune.storage.search_summary import SearchSummary

ANALYSIS = "analysis.json"
_LEAST_EXAMPLES = 5
_LENGTH = 128


@dataclass(frozen=True)
class Plan:
    """A checked analysis.

    Attributes:
        task: of both models.
        teacher, student: their descriptions.
        samples: the same dev examples, in a random order, as the teacher's and as the student's tokenizer gives them:
            the same token ids, but one of two families may have no token types.
        of: how many examples dev has.
        seed: of the sample and of t-SNE.
        pair: layers (t, s) that the map and t-SNE show: those that the memory stands for.
        pairs: all layers whose gaps are measured.
        memory: the artefact with the teacher's centroids; None where the sample is clustered.
        record: what the student's folder says of its making.
        output: where the analysis goes.
        identity: what it is an analysis of.
    """

    task: Task
    teacher: ModelInfo
    student: ModelInfo
    samples: tuple[TokenizedSplit, TokenizedSplit]
    of: int
    seed: int
    pair: Pair
    pairs: tuple[Pair, ...]
    memory: Path | None
    record: dict[str, Any]
    output: Path
    identity: dict[str, Any]

    @property
    def sample(self) -> TokenizedSplit:
        """The examples, for what does not ask for token types."""
        return self.samples[0]

    def centroids(self) -> NDArray[np.float32] | None:
        """The memory's, float32 [K, D]."""
        return None if self.memory is None else memory.read(self.memory, mapped=True).centroids


def plan(
    *,
    teacher: str | None,
    student: str | None,
    task: TaskLike | None,
    data: Path | None,
    output: Path | None,
    search: Path | None,
    memory: Path | None,
    examples: int,
    seed: int,
    overwrite: bool,
) -> Plan:
    """Check everything, or name every problem.

    Args:
        teacher, student: folder or hub id.
        task: id of a GLUE task, or the file of one's own.
        data: the folder that holds `SST-2/` and so on; None for the hub.
        output: the analysis's folder.
        search: the folder of a search that gives what is None above.
        memory: a folder of memories, or one of them; None for that of the search.
        examples: of dev at most.
        seed: of the sample.
        overwrite: replace an analysis of other models.

    Raises:
        InputError: with all problems.
    """
    if search is not None:
        given = recorded_inputs(search)
        teacher, task = teacher or given["teacher"], task or recorded_task(given)
        student = student or str(search / "best")
        data = data or (None if given["data"] is None else Path(given["data"]))
    places = {"--teacher": teacher, "--student": student, "--task": task, "--output": output or search}
    missing = [flag for flag, value in places.items() if not value]
    problems = [f"{flag}: is missing; give it, or --search with a search's folder." for flag in missing]
    hint, found, dev = "", None, None
    infos: dict[str, ModelInfo] = {}
    if task:
        try:
            found = splits.get_task(task)
            dev = splits.load(found, ["dev"], data)["dev"]
        except InputError as error:
            problems, hint = [*problems, *error.problems], error.hint
    for place, path in (("--teacher", teacher), ("--student", student)):
        try:
            if path:
                infos[place] = read_model_info(path, place)
                _ = found and label_order(infos[place], found, place)
        except InputError as error:
            problems += error.problems
    if dev is not None and len(dev) < _LEAST_EXAMPLES:
        problems.append(f"--data: {dev.source} has {len(dev)} examples, but an analysis needs {_LEAST_EXAMPLES}.")
    made = made_in_search(Path(student)) if search is None and student else search
    settings = _settings(made)
    if output is not None:
        problems += check_output(output, overwrite) if not (output / ANALYSIS).is_file() else []
    samples = None
    if dev is not None and len(infos) == 2:
        rows = np.random.default_rng(seed).permutation(len(dev))[:examples]
        try:
            samples = _samples(infos["--teacher"], infos["--student"], _rows(dev, rows), settings)
        except InputError as error:
            problems += error.problems
    if problems or found is None or dev is None or samples is None:
        raise InputError(problems, hint)
    theirs, ours = infos["--teacher"], infos["--student"]
    pair = global_pair(settings.get("layers", "penultimate"), theirs.layers, ours.layers)
    identity = {"task": found.definition, "teacher": fingerprint(theirs.path), "student": fingerprint(ours.path)}
    where = output or (search / "analysis" if search is not None else Path())
    if output is not None and not overwrite:
        problems += _other_analysis(output, identity)
    centroids = None
    try:
        centroids = _memory(memory, made, identity, theirs, pair[0])
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    kinds = ("all", "penultimate", "last")
    pairs = sorted({one for kind in kinds for one in layer_pairs(kind, theirs.layers, ours.layers)} | {pair})
    return Plan(
        found, theirs, ours, samples, len(dev), seed, pair, tuple(sorted(pairs, key=lambda one: one[::-1])), centroids,
        record_of(ours.path), where, identity,
    )  # fmt: skip


def _settings(search: Path | None) -> dict[str, Any]:
    """`layers` and `max_length` of the search that made the student; empty when none did."""
    if search is None:
        return {}
    from fsd_tune.report.results import load

    settings = load(search).settings
    found = {"layers": settings.get("loss", {}).get("layers"), "max_length": settings.get("data", {}).get("max_length")}
    return {key: value for key, value in found.items() if value is not None}


def _rows(split: splits.Split, rows: NDArray[np.int64]) -> splits.Split:
    assert split.labels is not None
    second = None if split.second is None else [split.second[row] for row in rows]
    return replace(split, first=[split.first[row] for row in rows], second=second, labels=split.labels[rows])


def _samples(
    teacher: ModelInfo, student: ModelInfo, chosen: splits.Split, settings: dict[str, Any]
) -> tuple[TokenizedSplit, TokenizedSplit]:
    """The dev examples that are looked at, tokenised for both models.

    Raises:
        InputError: the two models do not read the same tokens.
    """
    length = record_of(student.path).get("max_length") or settings.get("max_length") or _LENGTH
    length = min([int(length), *(one.positions for one in (teacher, student) if one.positions is not None)])
    problems, read = [], []
    for place, info in (("--teacher", teacher), ("--student", student)):
        try:
            read.append(tokenize(chosen, load_tokenizer(info.path), length))
        except Exception as error:  # tokenizers raises bare Exceptions for a damaged file
            problems.append(f"{place}: the tokenizer in {info.path} cannot be used: {str(error).splitlines()[0]}")
    if problems:
        raise InputError(problems)
    first, second = read
    pieces = [[one.ids[one.offsets[i] : one.offsets[i + 1]].tolist() for i in range(len(one))] for one in read]
    differing = sum(theirs != ours for theirs, ours in zip(*pieces, strict=True))
    if differing:
        raise InputError(
            f"--student: {student.path} reads other tokens than the teacher in {differing} of {len(first)} examples; "
            "tokens can be compared only where both models read the same ones; give models that share a tokenizer."
        )
    return first, second


def _other_analysis(output: Path, identity: dict[str, Any]) -> list[str]:
    try:
        held = json.loads((output / ANALYSIS).read_text(encoding="utf-8"))["identity"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        held = {}
    other = [name for name in identity if held.get(name) != identity[name]]
    if not other:
        return []
    return [f"--output: {output} holds the analysis of another {', '.join(other)}; give a new folder, or --overwrite."]


def _memory(
    given: Path | None, search: Path | None, identity: dict[str, Any], teacher: ModelInfo, layer: int
) -> Path | None:
    """The artefact that holds the teacher's centroids: the given one, or the search's where it fits.

    Raises:
        InputError: there is none in the given folder that fits, or more than one.
    """
    if given is None:
        folder = None if search is None else _searched_memory(search, identity)
        return folder if folder is not None and not _misfit(folder, teacher, layer) else None
    if not given.is_dir():
        raise InputError(f"--memory: {given} is no folder; give a folder of memories.")
    there = [given] if given.name.startswith("memory-") else sorted(given.glob("memory-*"))
    fitting = [folder for folder in there if not _misfit(folder, teacher, layer)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(folder.name for folder in fitting)
        raise InputError(f"--memory: {given} holds several memories ({names}); give the folder of one.")
    reasons = "; ".join(f"{folder.name} {_misfit(folder, teacher, layer)}" for folder in there)
    raise InputError(
        f"--memory: {given} holds no memory of the teacher's layer {layer} ({reasons or 'it has no folder memory-*'})."
    )


def _searched_memory(search: Path, identity: dict[str, Any]) -> Path | None:
    summary = SearchSummary.read(search)
    searched, path = summary.identity, Path(summary.memory.path or "none")
    if not path.name.startswith("memory-") or any(searched.get(key) != identity[key] for key in ("task", "teacher")):
        return None
    # The search may have been fetched from elsewhere.
    return next((place for place in (path, search / "memory" / path.name) if place.is_dir()), None)


def _misfit(folder: Path, teacher: ModelInfo, layer: int) -> str:
    """Why a memory cannot be this teacher's, as far as its facts say; empty when it may be."""
    facts = artifacts.facts_of(folder)
    if facts is None or "centroids" not in facts:
        return "is damaged"
    if facts["layer"] != layer:
        return f"stands for layer {facts['layer']}"
    if facts["width"] % teacher.hidden_size:
        return f"is {facts['width']} wide, which is no multiple of the teacher's {teacher.hidden_size}"
    return ""
