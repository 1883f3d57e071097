"""What the shapes of the student cost: the records in `summary.json`, which need no torch."""

from typing import Annotated, Any

from pydantic import Field, StrictFloat, StrictInt, StrictStr

from fsd_tune.storage.records import Record
from fsd_tune.storage.summary_part import SummaryPart

_Count = Annotated[StrictInt, Field(ge=0)]
_Positive = Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)]


class ShapeCost(Record):
    """The size, the operations and the latency of one shape.

    Attributes:
        layers: number of layers.
        hidden_size: value of `student.hidden_size`; None for the width of the model that the student starts from.
        width: the hidden size itself.
        parameters: number of weights.
        size_mb: megabytes (10^6 bytes) of the weights in float32.
        flops: operations for one example; None for a family whose operations cannot be counted.
        latency_ms: median time of one batch in milliseconds; None if it was not measured.
        spread: (90th - 10th percentile) / median of these times.
        runs: number of timed runs.
    """

    layers: _Count
    hidden_size: _Count | None = None
    width: _Count
    parameters: _Count
    size_mb: _Positive
    flops: _Count | None = None
    latency_ms: _Positive | None = None
    spread: _Positive | None = None
    runs: _Count | None = None

    @property
    def key(self) -> tuple[int, int | None]:
        """The shape: layers and `student.hidden_size`."""
        return self.layers, self.hidden_size

    @property
    def costs(self) -> dict[str, float]:
        """The costs that are known, by the names that `search.objectives` and `search.limits` use."""
        found = {
            "latency_ms": self.latency_ms,
            "parameters": self.parameters,
            "size_mb": self.size_mb,
            "flops": self.flops,
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    @property
    def text(self) -> str:
        """The shape in words, such as `3 layers` or `3 layers, 192 wide`."""
        layers = f"{self.layers} layer{'s' * (self.layers != 1)}"
        return layers if self.hidden_size is None else f"{layers}, {self.hidden_size} wide"


class ShapesSummary(SummaryPart):
    """The costs of all shapes of the search space and of the teacher, measured before the teacher pass.

    Attributes:
        students: a cost for each shape of the student.
        teacher: the cost of the teacher.
        length: number of tokens of the example that `flops` belongs to.
        machine: the machine that latency was measured on; None if it was not measured.
        setting: runtime, device, threads, batch and length of the latency.
        notes: remarks on the latency.
    """

    students: list[ShapeCost] | None = None
    teacher: ShapeCost | None = None
    length: StrictInt | None = None
    machine: StrictStr | None = None
    setting: dict[str, Any] | None = None
    notes: list[StrictStr] | None = None

    def of(self, layers: int, hidden_size: int | None) -> ShapeCost | None:
        """Return the cost of a shape; None if it was not measured.

        Args:
            layers: number of layers.
            hidden_size: value of `student.hidden_size`.
        """
        return next((cost for cost in self.students or [] if cost.key == (layers, hidden_size)), None)

    @property
    def conditions(self) -> str:
        """Machine, runtime, threads, batch and length of the latency; empty if it was not measured."""
        if self.setting is None:
            return ""
        found = self.setting
        threads = f"{found.get('threads')} thread{'s' * (found.get('threads') != 1)}"
        size = f"batch {found.get('batch')}, {found.get('length')} tokens"
        return f"{found.get('runtime')} on {found.get('device')}, {threads}, {size}; {self.machine}"
