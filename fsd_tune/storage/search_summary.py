"""The typed record of a search's summary, `summary.json`. Only this module reads and writes the file."""

from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_serializer,
)

from fsd_tune.errors import InputError
from fsd_tune.storage import artifacts, json_file, layout
from fsd_tune.storage.records import Record, Seconds


class SummaryPart(Record):
    """A mapping of the summary.

    Each key may be missing, because a search writes its summary step by step. Keys that this version does not know are
    preserved. A part without written keys is false, so `if summary.memory:` tests for it. The file has `null` for it.
    """

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    def __bool__(self) -> bool:
        """Return whether anything was written to this part."""
        return bool(self.model_fields_set)

    @model_serializer
    def as_json(self) -> dict[str, Any] | None:
        """Return the JSON value of this part: the keys that were written, or None if there are none."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        fields |= self.model_extra or {}
        json_fields = {
            name: value.as_json() if isinstance(value, SummaryPart) else value for name, value in fields.items()
        }
        return json_fields or None


class TeacherSummary(SummaryPart):
    """The teacher of a search.

    Attributes:
        name: the teacher's folder or hub id, as the user gave it.
        score: the teacher's score on the selection examples.
        metrics: all its metrics on these examples.
    """

    name: StrictStr | None = None
    score: StrictFloat | None = None
    metrics: dict[str, Any] | None = None


class StudentSummary(SummaryPart):
    """The students of a search; what it searches is the list of its values.

    Attributes:
        layers: number of their layers.
        start: how they are initialised (`student.start`).
        hidden_size: their hidden size; None for the teacher's.
        model: the model that it starts from; only earlier versions wrote this key.
    """

    layers: StrictInt | list[StrictInt] | None = None
    start: StrictStr | list[StrictStr] | None = None
    hidden_size: StrictInt | list[StrictInt | None] | None = None
    model: StrictStr | None = None


class MemorySummary(SummaryPart):
    """The teacher outputs and the teacher memory that a search's trials share.

    Attributes:
        fingerprint: digest of everything that they depend on.
        examples: number of training examples that the teacher ran over.
        live: whether the teacher runs in every step, because its outputs exceed their limit on disk.
        build_seconds: time of the build.
        centroids: number of clusters; None if no method of the search needs them.
        sizes: number of training examples in each cluster.
        inertia: sum of squared distances to the centroids.
        passes: teacher passes over the training split that this search ran.
        passes_ever: teacher passes that were ever run for these files, including earlier searches.
        path: the folder of these files.
    """

    fingerprint: StrictStr | None = None
    examples: StrictInt | None = None
    live: StrictBool | None = None
    build_seconds: Seconds | None = None
    centroids: StrictInt | None = None
    sizes: list[StrictInt] | None = None
    inertia: StrictFloat | None = None
    passes: StrictInt | None = None
    passes_ever: StrictInt | None = None
    path: StrictStr | None = None


class EndSummary(SummaryPart):
    """The reason why a completed search ended.

    Attributes:
        budget: `trials`, `grid`, `stop_after_stalled`, `stop_when` or `time_budget`.
        not_run: number of trials that did not start.
        text: the reason as a sentence.
    """

    budget: StrictStr | None = None
    not_run: StrictInt | None = None
    text: StrictStr | None = None


class DevSummary(SummaryPart):
    """The dev scores of the best student, in a search that selects on held-out training examples.

    Attributes:
        score: the task's metric.
        metrics: all metrics.
        examples: number of dev examples.
    """

    score: StrictFloat | None = None
    metrics: dict[str, Any] | None = None
    examples: StrictInt | None = None


class LayerCkaSummary(SummaryPart):
    """Linear CKA between the layers of the best student and of the teacher.

    Attributes:
        examples: number of examples that the CKA was measured on.
        cka: [student's layers][teacher's layers], the embeddings first; None if a value is undefined.
    """

    examples: StrictInt | None = None
    cka: list[list[StrictFloat | None]] | None = None


class ModelsSummary(SummaryPart):
    """The best student and the teacher side by side, as `profiling.side_by_side.compare_models` returns them.

    Attributes:
        machine: the machine that latency was measured on; None if it was not measured.
        setting: runtime, device, threads, batch and length of the latency.
        models: parameters, size, operations and latency by `student` and `teacher`.
        notes: remarks on the latency.
    """

    machine: StrictStr | None = None
    setting: dict[str, Any] | None = None
    models: dict[str, dict[str, Any]] | None = None
    notes: list[StrictStr] | None = None


_PartType = TypeVar("_PartType", bound=SummaryPart)
# An empty part stands for a missing one and for `null`, so that readers need no second case.
_Part = Annotated[_PartType, BeforeValidator(lambda value: value or {})]


def _mapping_or_empty(value: Any) -> Any:
    """Return an empty mapping for the digest that earlier versions wrote instead of a mapping."""
    return {} if value is None or isinstance(value, str) else value


class SearchSummary(SummaryPart):
    """The content of `summary.json`: the inputs, progress and results of a search.

    Attributes:
        identity: settings, task, and digests of teacher and splits. A search continues only with the same identity.
        inputs: task, teacher, data, memory and device as the user gave them, with absolute paths.
        name: name of the search and of its Optuna study.
        group: unique name of the search in a W&B project.
        task: id of the task.
        metric: the metric that selects.
        mode: `max` or `min`.
        state: `running`, `done`, `failed` or `interrupted`.
        trials: number of requested trials.
        reports: number of evaluations of a complete trial.
        rungs: reports at which ASHA stops trials; empty without ASHA.
        judge_by: how evaluations become a score: `last`, or of earlier versions `mean_of_last_3`.
        select_on: `dev`, or {"holdout": share of the training split}.
        selection_examples: number of selection examples.
        train_examples: number of examples that a student trains on.
        precision: `float32` or `bf16`.
        device: `cpu` or `cuda`.
        student: the student.
        machine: description of the machine that started the search.
        notes: remarks for the user.
        started: start time in seconds since 1970.
        memory: the teacher outputs and teacher memory that the trials share.
        teacher: the teacher.
        workers: number of trials that run at the same time.
        gpus_per_trial: share of a GPU for each trial.
        wall_seconds: run time of the search, including all its continuations.
        ended_by: the reason why it ended.
        dev: the dev scores of the best student.
        layer_cka: the CKA between the best student's and the teacher's layers.
        models: size and speed of the best student and of the teacher.
    """

    identity: Annotated[dict[str, Any], BeforeValidator(_mapping_or_empty)] = Field(default_factory=dict)
    inputs: Annotated[dict[str, StrictStr | None], BeforeValidator(_mapping_or_empty)] = Field(default_factory=dict)
    name: StrictStr | None = None
    group: StrictStr | None = None
    task: StrictStr | None = None
    metric: StrictStr | None = None
    mode: StrictStr | None = None
    state: StrictStr | None = None
    trials: StrictInt | None = None
    reports: StrictInt | None = None
    rungs: list[StrictInt] | None = None
    judge_by: StrictStr | None = None
    select_on: StrictStr | dict[str, StrictFloat] | None = None
    selection_examples: StrictInt | None = None
    train_examples: StrictInt | None = None
    precision: StrictStr | None = None
    device: StrictStr | None = None
    student: _Part[StudentSummary] = Field(default_factory=StudentSummary)
    machine: StrictStr | None = None
    notes: list[StrictStr] | None = None
    started: Seconds | None = None
    memory: _Part[MemorySummary] = Field(default_factory=MemorySummary)
    teacher: _Part[TeacherSummary] = Field(default_factory=TeacherSummary)
    workers: StrictInt | None = None
    gpus_per_trial: StrictFloat | None = None
    wall_seconds: Seconds | None = None
    ended_by: _Part[EndSummary] = Field(default_factory=EndSummary)
    dev: _Part[DevSummary] = Field(default_factory=DevSummary)
    layer_cka: _Part[LayerCkaSummary] = Field(default_factory=LayerCkaSummary)
    models: _Part[ModelsSummary] = Field(default_factory=ModelsSummary)

    @property
    def held_out(self) -> float | None:
        """The share of the training split that selects; None if the dev split selects."""
        return self.select_on.get("holdout") if isinstance(self.select_on, dict) else None

    @property
    def planned_reports(self) -> int:
        """The value of `reports`, which every search that has begun records.

        Raises:
            InputError: the file lacks `reports`.
        """
        if self.reports is None:
            raise InputError(f"{layout.SUMMARY}: reports: missing, but must be a whole number.")
        return self.reports

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the summary of a search's folder; values of a wrong type are left out.

        Args:
            folder: the search's folder.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not JSON, or not a mapping.
        """
        return cls.from_json(json_file.read_mapping(folder / layout.SUMMARY), layout.SUMMARY)[0]

    def write(self, folder: Path) -> None:
        """Write the summary into a search's folder.

        Args:
            folder: the search's folder.
        """
        artifacts.write_json(folder / layout.SUMMARY, self.as_json() or {})

    def update(self, **changes: Any) -> None:
        """Set several fields; a mapping is converted to the field's part.

        Args:
            changes: values by the names of their fields.
        """
        for name, value in changes.items():
            assert name in type(self).model_fields, name
            setattr(self, name, value)

    def forget(self, *names: str) -> None:
        """Remove fields, as if they were never written.

        Args:
            names: names of fields.
        """
        empty = type(self)()
        for name in names:
            setattr(self, name, getattr(empty, name))
            self.model_fields_set.discard(name)

    def values(self, *names: str) -> dict[str, Any]:
        """Return the JSON values of some fields.

        Args:
            names: names of fields.

        Returns:
            {name: value}; the value is None for a field that was not written.
        """
        fields = self.as_json() or {}
        return {name: fields.get(name) for name in names}
