"""Measure finished models: size, operations and latency of a student, beside its teacher's."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.models import onnx
from fsd_tune.models.loading import checked_tokenizer, load_config, read_model_info
from fsd_tune.models.model_config import positions_of
from fsd_tune.profiling.cost import cost_of
from fsd_tune.profiling.latency import RUNS, SECONDS, Latency, Setting, Target, measure_latency, noise_warnings
from fsd_tune.profiling.machine import Machine, cores
from fsd_tune.progress import Display
from fsd_tune.storage.uri import local_path

BATCHES = (1, 32)
LENGTHS = (16, 64, 128)


def measure(
    student: str | Path,
    teacher: str | Path | None = None,
    *,
    batches: Sequence[int] = BATCHES,
    lengths: Sequence[int] = LENGTHS,
    threads: Sequence[int] | None = None,
    device: str = "cpu",
    runs: int = RUNS,
    seconds: float = SECONDS,
    again: bool = False,
    display: Display | None = None,
) -> dict[str, Any]:
    """Measure the size, the operations and the latency of a student, and of its teacher.

    Latency is measured in a process of its own, in torch and (with `fsd_tune[onnx]`) in ONNX Runtime, the tokenizer by
    itself. This machine keeps the results, because they depend on the model's shape alone.

    Example:
        >>> import fsd_tune as fsd
        >>> document = fsd.measure("runs/rte/best", "teachers/rte")  # doctest: +SKIP
        >>> document["models"]["student"]["parameters"]  # doctest: +SKIP
        17390594

    Args:
        student: folder or hub id of the student.
        teacher: folder or hub id of its teacher; None for the student alone.
        batches: examples that are computed at once.
        lengths: tokens of an example; those that a model does not accept are left out, with a note.
        threads: threads that compute a batch; None for one, and one on each core.
        device: cpu or cuda, where torch computes.
        runs: timed runs at each setting, after a warm-up.
        seconds: time for one setting, after which fewer runs are enough, but at least 5.
        again: measure what an earlier call has measured, too.
        display: shows progress; None shows nothing.

    Returns:
        {"machine": its parts, "models": {"student" and "teacher": {"path", "layers", "hidden_size", "parameters",
        "size_mb", "flops": {tokens: operations}, "latency": [{"runtime", "device", "threads", "batch", "length",
        "p50_ms", "p90_ms", "p99_ms", "runs", "spread"}]}}, "notes": sentences}.

    Raises:
        InputError: with the problems of both models.
        FsdTuneError: the process that measures failed.
    """
    display = display or Display(quiet=True)
    paths = {"student": str(student)} | ({} if teacher is None else {"teacher": str(teacher)})
    problems = ProblemCollector()
    for name, path in paths.items():
        with problems.collect():
            read_model_info(path, f"--{name}")
            checked_tokenizer(path, f"--{name}")
    problems.raise_any()
    configs = {name: load_config(path) for name, path in paths.items()}
    limits = [limit for config in configs.values() if (limit := positions_of(config)) is not None]
    accepted = [length for length in lengths if length <= min(limits, default=length)]
    notes = []
    if len(accepted) < len(lengths):
        left_out = ", ".join(str(length) for length in lengths if length not in accepted)
        notes.append(f"lengths left out, because a model takes at most {min(limits)} tokens: {left_out}.")
    if not accepted:
        raise InputError(f"--length: found {max(lengths)}, but must be at most {min(limits)}, which a model takes.")
    runtimes = ["torch"]
    if lacking := onnx.lacking():
        notes.append(f"ONNX Runtime is left out ({', '.join(lacking)} not installed): pip install 'fsd_tune[onnx]'.")
    else:
        runtimes.append("onnxruntime")
    counts = sorted({1, cores()}) if threads is None else list(threads)
    grid = [(count, batch, length) for count in counts for batch in batches for length in accepted]
    # The tokenizer of one text has nothing to share among threads.
    settings = tuple(
        Setting(runtime, *size, device=device if runtime == "torch" else "cpu")
        for runtime in [*runtimes, "tokenizer"]
        for size in grid
        if runtime != "tokenizer" or size[0] == counts[0]
    )
    targets = [Target(configs[name], settings, tokenizer=path) for name, path in paths.items()]
    results = measure_latency(
        targets, runs=runs, seconds=seconds, again=again,
        progress=lambda done, total: display.stage("latency", min(done, total), total),
    )  # fmt: skip
    display.close()
    models = {
        name: {"path": paths[name]} | describe(configs[name], paths[name], tuple(accepted), latencies)
        for name, latencies in zip(paths, results, strict=True)
    }
    notes += noise_warnings([latency for latencies in results for latency in latencies])
    return {"machine": Machine.current().as_json(), "models": models, "notes": notes}


def describe(config: Any, path: str | Path, lengths: tuple[int, ...], latencies: Sequence[Latency]) -> dict[str, Any]:
    """Return the size, the operations and the latencies of a model as a JSON document.

    Args:
        config: its transformers configuration.
        path: its folder or hub id.
        lengths: the numbers of tokens to count operations for.
        latencies: the measured latencies.
    """
    folder = local_path(path)
    cost = asdict(cost_of(config, lengths, folder if folder.is_dir() else None))
    return {
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        **cost,
        "flops": {str(length): count for length, count in cost["flops"].items()},
        "latency": [latency.as_json() for latency in latencies],
    }
