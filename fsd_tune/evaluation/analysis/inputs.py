"""The inputs of `fsd-tune analyze`, checked before any model runs: models, dev sample, memory, output folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_tune.data import splits
from fsd_tune.data.batching import TokenizedSplit, tokenize
from fsd_tune.data.splits import Task, TaskLike
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.memory import teacher_memory as memory
from fsd_tune.memory.spec import fingerprint
from fsd_tune.models.folder import check_output, made_in_search
from fsd_tune.models.layers import Pair, global_pair, layer_pairs
from fsd_tune.models.loading import ModelInfo, label_order, load_tokenizer, read_model_info
from fsd_tune.search.folder import recorded_inputs, recorded_task
from fsd_tune.storage import artifacts, json_file, layout
from fsd_tune.storage.model_record import ModelRecord
from fsd_tune.storage.outputs import output_problems
from fsd_tune.storage.search_summary import SearchSummary

ANALYSIS = "analysis.json"
_LEAST_EXAMPLES = 5
# Tokens of an example if neither the student nor its search records a number.
_DEFAULT_LENGTH = 128


@dataclass(frozen=True)
class AnalysisPlan:
    """The checked inputs of an analysis.

    Attributes:
        task: the task of both models.
        teacher: description of the teacher.
        student: description of the student.
        samples: the same dev examples in a random order, tokenised for the teacher and for the student. Token ids are
            the same, but models of two families can differ in token types.
        dev_examples: number of examples of dev.
        seed: the seed of the sample and of t-SNE.
        pair: layers (t, s) that the map and t-SNE show: the pair of the memory.
        pairs: all pairs of layers whose gaps are measured.
        memory: the artefact with the teacher's centroids; None if the sample is clustered instead.
        record: the record in the student's folder.
        output: the folder of the analysis.
        identity: values that identify task, teacher and student.
    """

    task: Task
    teacher: ModelInfo
    student: ModelInfo
    samples: tuple[TokenizedSplit, TokenizedSplit]
    dev_examples: int
    seed: int
    pair: Pair
    pairs: tuple[Pair, ...]
    memory: Path | None
    record: ModelRecord
    output: Path
    identity: dict[str, Any]

    @property
    def sample(self) -> TokenizedSplit:
        """The examples with the teacher's token types, for everything that needs only token ids."""
        return self.samples[0]

    def centroids(self) -> NDArray[np.float32] | None:
        """Return the memory's centroids, float32 [K, D]; None without a memory."""
        return None if self.memory is None else memory.read_memory(self.memory, mapped=True).centroids


def plan_analysis(
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
) -> AnalysisPlan:
    """Check the inputs of an analysis, and sample the dev examples.

    Args:
        teacher: folder or hub id of the teacher.
        student: folder or hub id of the student.
        task: id of a GLUE task, or the YAML file of your own.
        data: the folder that holds `SST-2/` and so on; None for the hub.
        output: the folder of the analysis.
        search: the folder of a search that provides the values that are None above.
        memory: a folder of memories, or one of them; None for the search's.
        examples: largest number of dev examples.
        seed: the seed of the sample.
        overwrite: replace an analysis of other models.

    Returns:
        The checked inputs, with the sample.

    Raises:
        InputError: the message lists all problems.
    """
    if search is not None:
        recorded = recorded_inputs(search)
        teacher = teacher or recorded["teacher"]
        task = task or recorded_task(recorded)
        student = student or str(search / layout.BEST)
        data = data or (None if recorded["data"] is None else Path(recorded["data"]))
    required = {"--teacher": teacher, "--student": student, "--task": task, "--output": output or search}
    problems = ProblemCollector(
        f"{flag}: is missing; give it, or --search with a search's folder."
        for flag, value in required.items()
        if not value
    )
    models = {flag: path for flag, path in (("--teacher", teacher), ("--student", student)) if path}
    resolved, dev, infos = _load_models_and_data(task, data, models, problems)
    if output is not None and not (output / ANALYSIS).is_file():
        problems.add(*check_output(output, overwrite, {**models, "--data": data}))
    elif search is not None or output is not None:
        problems.add(*output_problems(output or Path(str(search), layout.ANALYSIS)))
    source_search = made_in_search(Path(student)) if search is None and student else search
    settings = _settings(source_search)
    samples: tuple[TokenizedSplit, TokenizedSplit] | None = None
    if dev is not None and len(infos) == 2:
        rows = np.random.default_rng(seed).permutation(len(dev))[:examples]
        with problems.collect():
            samples = _samples(infos["--teacher"], infos["--student"], _rows(dev, rows), settings)
    problems.raise_any()
    assert resolved is not None and dev is not None and samples is not None
    teacher_info = infos["--teacher"]
    student_info = infos["--student"]
    identity = {
        "task": resolved.definition,
        "teacher": fingerprint(teacher_info.path),
        "student": fingerprint(student_info.path),
    }
    pair = global_pair(settings.get("layers", "penultimate"), teacher_info.layers, student_info.layers)
    if output is not None and not overwrite:
        problems.add(*_other_analysis(output, identity))
    memory_folder: Path | None = None
    with problems.collect():
        memory_folder = _memory(memory, source_search, identity, teacher_info, pair[0])
    problems.raise_any()
    return AnalysisPlan(
        task=resolved,
        teacher=teacher_info,
        student=student_info,
        samples=samples,
        dev_examples=len(dev),
        seed=seed,
        pair=pair,
        pairs=_layer_pairs(teacher_info, student_info, pair),
        memory=memory_folder,
        record=ModelRecord.read(student_info.path),
        output=output or (Path() if search is None else search / layout.ANALYSIS),
        identity=identity,
    )


def _load_models_and_data(
    task: TaskLike | None, data: Path | None, models: dict[str, str], problems: ProblemCollector
) -> tuple[Task | None, splits.Split | None, dict[str, ModelInfo]]:
    """Return the task, its dev split and the models' descriptions by flag, and add errors to `problems`."""
    resolved: Task | None = None
    dev: splits.Split | None = None
    infos: dict[str, ModelInfo] = {}
    if task:
        with problems.collect():
            resolved = splits.get_task(task)
            dev = splits.load_splits(resolved, ["dev"], data)["dev"]
    for flag, path in models.items():
        with problems.collect():
            infos[flag] = read_model_info(path, flag)
            if resolved is not None:
                label_order(infos[flag], resolved, flag)
    if dev is not None and len(dev) < _LEAST_EXAMPLES:
        problems.add(f"--data: {dev.source} has {len(dev)} examples, but an analysis needs {_LEAST_EXAMPLES}.")
    return resolved, dev, infos


def _layer_pairs(teacher: ModelInfo, student: ModelInfo, pair: Pair) -> tuple[Pair, ...]:
    """Return the pairs of layers whose gaps are measured, by the student's layer."""
    pairs = {
        layers
        for kind in ("all", "penultimate", "last")
        for layers in layer_pairs(kind, teacher.layers, student.layers)
    }
    return tuple(sorted(pairs | {pair}, key=lambda layers: layers[::-1]))


def _settings(search: Path | None) -> dict[str, Any]:
    """Return `layers` and `max_length` of the search that trained the student; empty without a search."""
    if search is None:
        return {}
    from fsd_tune.report.results import load

    settings = load(search).settings
    relevant = {
        "layers": settings.get("loss", {}).get("layers"),
        "max_length": settings.get("data", {}).get("max_length"),
    }
    return {key: value for key, value in relevant.items() if value is not None}


def _rows(split: splits.Split, rows: NDArray[np.int64]) -> splits.Split:
    assert split.labels is not None
    second = None if split.second is None else [split.second[row] for row in rows]
    return replace(split, first=[split.first[row] for row in rows], second=second, labels=split.labels[rows])


def _samples(
    teacher: ModelInfo, student: ModelInfo, examples: splits.Split, settings: dict[str, Any]
) -> tuple[TokenizedSplit, TokenizedSplit]:
    """Return the sampled dev examples, tokenised for both models.

    Raises:
        InputError: the two models do not read the same tokens.
    """
    limits = [info.positions for info in (teacher, student) if info.positions is not None]
    recorded = ModelRecord.read(student.path).max_length or settings.get("max_length") or _DEFAULT_LENGTH
    length = min([int(recorded), *limits])
    problems = ProblemCollector()
    tokenized: list[TokenizedSplit] = []
    for flag, info in (("--teacher", teacher), ("--student", student)):
        try:
            tokenized.append(tokenize(examples, load_tokenizer(info.path), length))
        except Exception as error:  # The library tokenizers raises bare Exceptions for a damaged file.
            problems.add(f"{flag}: the tokenizer in {info.path} cannot be used: {str(error).splitlines()[0]}")
    problems.raise_any()
    first, second = tokenized
    differing = sum(
        not np.array_equal(first.ids[slice(*first.offsets[i : i + 2])], second.ids[slice(*second.offsets[i : i + 2])])
        for i in range(len(first))
    )
    if differing:
        raise InputError(
            f"--student: {student.path} reads other tokens than the teacher in {differing} of {len(first)} examples; "
            "tokens can be compared only if both models read the same ones; give models that share a tokenizer."
        )
    return first, second


def _other_analysis(output: Path, identity: dict[str, Any]) -> list[str]:
    """Return the problem of a folder that holds the analysis of other models."""
    try:
        recorded_identity = json_file.read_mapping(output / ANALYSIS)["identity"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError):
        recorded_identity = {}
    if not isinstance(recorded_identity, dict):
        recorded_identity = {}
    differing = [name for name in identity if recorded_identity.get(name) != identity[name]]
    if not differing:
        return []
    return [
        f"--output: {output} holds the analysis of another {', '.join(differing)}; give a new folder, or --overwrite."
    ]


def _memory(
    path: Path | None, search: Path | None, identity: dict[str, Any], teacher: ModelInfo, layer: int
) -> Path | None:
    """Return the memory with the teacher's centroids: the one in `path`, or the search's if it fits.

    Raises:
        InputError: no memory in `path` fits, or several do.
    """
    if path is None:
        folder = None if search is None else _searched_memory(search, identity)
        return folder if folder is not None and not _mismatch(folder, teacher, layer) else None
    if not path.is_dir():
        raise InputError(f"--memory: {path} is no folder; give a folder of memories.")
    candidates = [path] if path.name.startswith("memory-") else sorted(path.glob("memory-*"))
    fitting = [folder for folder in candidates if not _mismatch(folder, teacher, layer)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(folder.name for folder in fitting)
        raise InputError(f"--memory: {path} holds several memories ({names}); give the folder of one.")
    reasons = "; ".join(f"{folder.name} {_mismatch(folder, teacher, layer)}" for folder in candidates)
    raise InputError(
        f"--memory: {path} holds no memory of the teacher's layer {layer} ({reasons or 'it has no folder memory-*'})."
    )


def _searched_memory(search: Path, identity: dict[str, Any]) -> Path | None:
    summary = SearchSummary.read(search)
    path = Path(summary.memory.path or "none")
    if not path.name.startswith("memory-") or any(
        summary.identity.get(key) != identity[key] for key in ("task", "teacher")
    ):
        return None
    # If the search was copied from another machine, the recorded path does not exist here.
    return next((folder for folder in (path, search / layout.MEMORY / path.name) if folder.is_dir()), None)


def _mismatch(folder: Path, teacher: ModelInfo, layer: int) -> str:
    """Return why a memory cannot belong to this teacher according to its facts; empty if it can."""
    facts = artifacts.facts_of(folder)
    if facts is None or "centroids" not in facts:
        return "is damaged"
    if facts["layer"] != layer:
        return f"stands for layer {facts['layer']}"
    if facts["width"] % teacher.hidden_size:
        return f"is {facts['width']} wide, but must be a multiple of the teacher's {teacher.hidden_size}"
    return ""
