"""The files of an exported student that people serve: safetensors, ONNX and int8, with their score, size and speed."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fsd_tune.data import splits
from fsd_tune.data.batching import TokenizedSplit, collate, tokenize
from fsd_tune.data.splits import Split, Task
from fsd_tune.deployment.calibration import choose_calibration
from fsd_tune.deployment.int8 import Attempt, find_int8
from fsd_tune.device import select_device
from fsd_tune.evaluation.scoring import CheckedModel
from fsd_tune.models.model_config import positions_of
from fsd_tune.models.onnx import open_session, run_session, write_onnx
from fsd_tune.profiling.cost import cost_of
from fsd_tune.profiling.latency import Latency, Setting, Target, measure_latency, noise_warnings
from fsd_tune.profiling.machine import Machine, cores
from fsd_tune.progress import Display

WEIGHTS, ONNX, INT8 = "model.safetensors", "model.onnx", "model_quantized.onnx"
# Tokens of an example if no dev split says how long the task's are.
_DEFAULT_LENGTH = 64
# Enough for 100 runs of any encoder of common size.
_SECONDS = 60.0


@dataclass(frozen=True)
class ServedFile:
    """One file that can be served.

    Attributes:
        name: its name in the folder.
        runtime: torch or onnxruntime.
        size_mb: megabytes (10^6 bytes).
        score: the task's metric on dev; None if it was not scored.
        latencies: at batch 1, with one thread and with one on each core; empty if they were not measured.
    """

    name: str
    runtime: str
    size_mb: float
    score: float | None = None
    latencies: tuple[Latency, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the JSON value of the file."""
        return {
            "file": self.name,
            "runtime": self.runtime,
            "size_mb": self.size_mb,
            "score": self.score,
            "latency": [latency.as_json() for latency in self.latencies],
        }


@dataclass(frozen=True)
class Int8Inputs:
    """The inputs of an int8 export, in addition to the student.

    Attributes:
        checked: the student with its tokenizer, maximum length and order of labels.
        train: the training split, for the calibration.
        dev: the tokenised dev split.
        max_drop: points that the int8 file may lose on dev.
    """

    checked: CheckedModel
    train: Split
    dev: TokenizedSplit
    max_drop: float


def int8_inputs(checked: CheckedModel, task: Task, data: Path | None, max_drop: float) -> Int8Inputs:
    """Load the splits that int8 needs.

    Args:
        checked: the student.
        task: its task.
        data: the folder of the data; None for the hub, or the folder of the task's file.
        max_drop: points that the int8 file may lose.

    Raises:
        InputError: the splits cannot be loaded.
    """
    dev_name = next(name for name in task.splits if name.startswith("dev"))
    loaded = splits.load_splits(task, ("train", dev_name), data)
    dev = tokenize(loaded[dev_name], checked.tokenizer, checked.max_length)
    return Int8Inputs(checked, loaded["train"], dev, max_drop)


def write_served_files(
    folder: Path, model: Any, tokenizer: Any, *, onnx: bool, int8: Int8Inputs | None, speed: bool, display: Display
) -> dict[str, Any]:
    """Write the ONNX files beside a student's safetensors, and measure all of them.

    Args:
        folder: the folder with the safetensors.
        model: the student, on the CPU.
        tokenizer: its tokenizer.
        onnx: write `model.onnx`.
        int8: write `model_quantized.onnx`, too; None to leave it out.
        speed: measure latency.
        display: shows progress.

    Returns:
        {"onnx_difference": float or None, "size_and_speed": {"parameters", "length", "flops", "machine", "files":
        as `ServedFile.as_json`, "int8": None or {"kind", "float_parts", "drop", "max_drop", "calibration",
        "dev_examples", "attempts"}, "notes"}}

    Raises:
        FsdTuneError: the ONNX file computes other logits, or no int8 file is within the bound.
    """
    difference, found = None, None
    size = sum(path.stat().st_size for path in folder.glob("model*.safetensors")) / 1e6
    files = [ServedFile(WEIGHTS, "torch", size)]
    if onnx:
        display.stage("ONNX: tracing the model, which takes a while", 0, 1)
        difference = write_onnx(folder / ONNX, model, list(tokenizer("A sentence.")))
        files.append(ServedFile(ONNX, "onnxruntime", _size(folder / ONNX)))
    if int8 is not None:
        float_score, found, calibration, attempts = _write_int8(folder, model.config, int8, display)
        files = [*(replace(file, score=float_score) for file in files)]
        files.append(ServedFile(INT8, "onnxruntime", _size(folder / INT8), found.score))
    length = _typical_length(model.config, int8)
    notes: list[str] = []
    if speed:
        files = _measured(folder, model.config, files, length, display)
        notes = noise_warnings([latency for file in files for latency in file.latencies])
    cost = cost_of(model.config, (length,))
    document: dict[str, Any] = {
        "parameters": cost.parameters,
        "length": length,
        "flops": cost.flops[length],
        "machine": Machine.current().text if speed else None,
        "files": [file.as_json() for file in files],
        "int8": None,
        "notes": notes,
    }
    if int8 is not None and found is not None:
        document["int8"] = found.as_json() | {
            "max_drop": int8.max_drop,
            "calibration": calibration,
            "dev_examples": len(int8.dev),
            "attempts": [attempt.as_json() for attempt in attempts],
        }
    return {"onnx_difference": difference, "size_and_speed": document}


def score_onnx(path: Path, task: Task, dev: TokenizedSplit, order: Sequence[int]) -> float:
    """Return the score of an ONNX file on a split, by the task's metric.

    Each example is computed by itself. In a batch the results of dynamic quantisation would depend on the other
    examples, because it scales activations by the range of the batch.

    Args:
        path: the file.
        task: the task.
        dev: the tokenised split.
        order: for each label of the task, the index of the file's logit.
    """
    session = open_session(path)
    cpu = select_device("cpu")
    logits = np.concatenate([run_session(session, collate(dev, np.array([row]), cpu)) for row in range(len(dev))])
    return float(splits.compute_metrics(task, logits[:, list(order)], dev.labels)[task.metric])


def _write_int8(
    folder: Path, config: Any, int8: Int8Inputs, display: Display
) -> tuple[float, Attempt, str, tuple[Attempt, ...]]:
    """Write the fastest int8 file within the bound.

    Returns:
        The float file's score, the chosen attempt, how calibration examples were chosen, and all attempts.
    """
    checked = int8.checked
    chosen = choose_calibration(checked.path, int8.train, checked.tokenizer, checked.max_length)
    score = partial(score_onnx, task=checked.task, dev=int8.dev, order=checked.order)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        search = find_int8(folder / ONNX, Path(work), chosen.examples, score, int8.max_drop, display)
        paths = list(search.within)
        if len(paths) > 1:
            display.stage("int8: choosing the fastest file", 0, 1)
            setting = (Setting("onnxruntime", length=_typical_length(config, int8)),)
            targets = [Target(config, setting, onnx=path, quantised=True) for path in paths]
            speeds = [latency.p50_ms for (latency,) in measure_latency(targets, seconds=_SECONDS)]
            paths = [paths[int(np.argmin(speeds))]]
        shutil.copyfile(paths[0], folder / INT8)
    return search.float_score, search.within[paths[0]], chosen.source, search.attempts


def _measured(folder: Path, config: Any, files: list[ServedFile], length: int, display: Display) -> list[ServedFile]:
    """Return the files with their latencies."""
    targets = [
        Target(
            config,
            tuple(Setting(file.runtime, threads, length=length) for threads in sorted({1, cores()})),
            onnx=folder / file.name if file.runtime == "onnxruntime" else None,
            quantised=file.name == INT8,
        )
        for file in files
    ]
    results = measure_latency(
        targets, seconds=_SECONDS, progress=lambda done, total: display.stage("latency", min(done, total), total)
    )  # fmt: skip
    return [replace(file, latencies=tuple(found)) for file, found in zip(files, results, strict=True)]


def _typical_length(config: Any, int8: Int8Inputs | None) -> int:
    """Return the median number of tokens of a dev example; without dev 64, or what the model accepts."""
    if int8 is not None:
        return int(np.median(int8.dev.lengths))
    return min(positions_of(config) or _DEFAULT_LENGTH, _DEFAULT_LENGTH)


def _size(path: Path) -> float:
    """Return the megabytes of an ONNX file, with the second file of large models."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*")) / 1e6
