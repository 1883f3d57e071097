"""Find the int8 file of a student that loses at most a given number of points.

Everything with weights is quantised at first. If that loses too much, the parts (embeddings, layers, head) that change
the logits most fall back to float one after the other, until the score on dev is within the bound.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_tune.data.batching import TokenizedSplit, collate
from fsd_tune.deployment.quantisation import KINDS, parts_of, quantise
from fsd_tune.device import select_device
from fsd_tune.errors import FsdTuneError
from fsd_tune.models.onnx import open_session, run_session
from fsd_tune.progress import Display

MAX_DROP = 0.5


@dataclass(frozen=True)
class Attempt:
    """An int8 file that was scored.

    Attributes:
        kind: dynamic or static.
        float_parts: the parts that stayed in float.
        score: the task's metric on dev.
        drop: points (hundredths) that it loses against the float file.
        size_mb: megabytes (10^6 bytes) of the file.
    """

    kind: str
    float_parts: tuple[str, ...]
    score: float
    drop: float
    size_mb: float

    @property
    def text(self) -> str:
        """Describe the attempt in words, such as `dynamic with layer 2 in float 0.7500 (1.33 points less)`."""
        parts = f" with {', '.join(self.float_parts)} in float" if self.float_parts else ""
        change = f"{abs(self.drop):.2f} points {'less' if self.drop > 0 else 'more'}"
        return f"{self.kind}{parts} {self.score:.4f} ({change})"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON value of the attempt."""
        return {**asdict(self), "float_parts": list(self.float_parts)}


@dataclass(frozen=True)
class Int8Search:
    """All int8 files that were tried.

    Attributes:
        float_score: the float file's score on dev.
        attempts: the files that were scored, in this order.
        within: the files within the bound, at most one of each kind, by their paths.
    """

    float_score: float
    attempts: tuple[Attempt, ...]
    within: dict[Path, Attempt]


def find_int8(
    source: Path,
    folder: Path,
    calibration: TokenizedSplit,
    score: Callable[[Path], float],
    max_drop: float,
    display: Display,
) -> Int8Search:
    """Quantise a float ONNX file in each way until its score is within a bound.

    Args:
        source: the float file.
        folder: a folder for the int8 files.
        calibration: examples for the calibration, and for comparing logits.
        score: returns a file's score on dev.
        max_drop: the bound in points.
        display: shows progress.

    Raises:
        FsdTuneError: no file is within the bound; the message has the scores.
    """
    display.stage("int8: scoring the float file", 0, 1)
    float_score = score(source)
    parts = parts_of(source)
    cpu = select_device("cpu")
    batches = [collate(calibration, np.array([row]), cpu) for row in range(len(calibration))]
    expected = _logits(source, batches)
    attempts: list[Attempt] = []
    within: dict[Path, Attempt] = {}
    for kind in KINDS:
        target = folder / f"{kind}.onnx"

        def made(int8_parts: Sequence[str], kind: str = kind, target: Path = target) -> Path:
            quantise(source, target, kind, [node for part in int8_parts for node in parts[part]], batches)
            return target

        float_parts: list[str] = []
        order: list[str] = []
        # A file with more float parts than one that is within the bound already would be larger and slower.
        most = min((len(attempt.float_parts) for attempt in within.values()), default=len(parts) - 1)
        while len(float_parts) <= most:
            display.stage(f"int8, {kind}: quantising and scoring{_in_float(float_parts)}", 0, 1)
            path = made([part for part in parts if part not in float_parts])
            found = score(path)
            attempt = Attempt(
                kind, tuple(float_parts), found, 100 * (float_score - found), path.stat().st_size / 1e6
            )  # fmt: skip
            attempts.append(attempt)
            # Scores are ratios of whole numbers, so a drop that equals the bound may be over it by rounding.
            if attempt.drop <= max_drop + 1e-9:
                kept = folder / f"{kind}_within.onnx"
                shutil.move(path, kept)
                within[kept] = attempt
                break
            if len(float_parts) == most:
                break
            if not order:
                display.stage(f"int8, {kind}: looking for the parts that cost most", 0, 1)
                changes = {part: float(np.abs(_logits(made([part]), batches) - expected).mean()) for part in parts}
                order = sorted(parts, key=lambda part: -changes[part])
            float_parts.append(order[len(float_parts)])
    if not within:
        raise FsdTuneError(
            f"--max-drop: no int8 file is within {max_drop:g} points of the float file's {float_score:.4f} on dev: "
            f"{'; '.join(attempt.text for attempt in attempts)}. Nothing was written.",
            hint="Give a larger --max-drop, or leave --int8 out.",
        )
    return Int8Search(float_score, tuple(attempts), within)


def _in_float(parts: Sequence[str]) -> str:
    return f" with {', '.join(parts)} in float" if parts else ""


def _logits(path: Path, batches: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
    session = open_session(path)
    return np.concatenate([run_session(session, batch) for batch in batches])
