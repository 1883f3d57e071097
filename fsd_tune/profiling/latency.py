"""Measure how long classifiers take, in a process of its own, once per shape and machine.

A child process makes each model with random weights, because the time does not depend on their values, and runs it at
each setting. Results are kept in this machine's cache by the model's shape, the machine and the versions of the
runtimes. A result whose times vary by more than 20% comes from a busy machine: it is measured a second time, and never
kept.
"""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fsd_tune.errors import FsdTuneError
from fsd_tune.profiling import cache
from fsd_tune.profiling.cost import shape_of
from fsd_tune.profiling.machine import Machine
from fsd_tune.python_command import python
from fsd_tune.storage import artifacts

# Largest spread of a machine that is not busy.
BUSY_SPREAD = 0.2
RUNS = 100
SECONDS = 5.0
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "spiece*", "sentencepiece*", "special_tokens*")


@dataclass(frozen=True)
class Setting:
    """The conditions under which a latency is measured.

    Attributes:
        runtime: torch, onnxruntime, or tokenizer.
        threads: threads that compute one batch.
        batch: examples that are computed at once.
        length: tokens of each example.
        device: cpu or cuda; runtimes other than torch compute on the CPU.
    """

    runtime: str
    threads: int = 1
    batch: int = 1
    length: int = 64
    device: str = "cpu"

    @property
    def text(self) -> str:
        """Describe the setting in words, such as `onnxruntime on cpu, 1 thread, batch 1, 64 tokens`."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.runtime} on {self.device}, {threads}, batch {self.batch}, {self.length} tokens"


@dataclass(frozen=True)
class Latency:
    """The time of one batch at a setting, over many runs after a warm-up.

    Attributes:
        setting: what it was measured at.
        p50_ms: median in milliseconds.
        p90_ms: 90th percentile; None for fewer than 10 runs.
        p99_ms: 99th percentile; None for fewer than 100 runs.
        runs: number of timed runs.
        spread: (90th - 10th percentile) / median.
    """

    setting: Setting
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    runs: int
    spread: float

    @property
    def is_noisy(self) -> bool:
        """Whether the machine was too busy for the result to be relied on."""
        return self.spread > BUSY_SPREAD

    def as_json(self) -> dict[str, Any]:
        """Return the JSON value: the setting and the times in one mapping."""
        value = asdict(self)
        return {**value.pop("setting"), **value}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Latency":
        """Return the latency of a JSON value.

        Args:
            value: as `as_json` returns it.
        """
        times = {name: value[name] for name in ("p50_ms", "p90_ms", "p99_ms", "runs", "spread")}
        setting = {name: value[name] for name in ("runtime", "threads", "batch", "length", "device")}
        return cls(Setting(**setting), **times)


@dataclass(frozen=True)
class Target:
    """A model to measure.

    Attributes:
        config: its transformers configuration.
        settings: what to measure it at.
        onnx: the ONNX file that onnxruntime runs; None to export a model with random weights.
        quantised: whether the file is quantised. A float file takes as long as every other one of its shape.
        tokenizer: folder or hub id of its tokenizer; needed for the runtime `tokenizer`.
    """

    config: Any
    settings: tuple[Setting, ...]
    onnx: Path | None = None
    quantised: bool = False
    tokenizer: str | None = None
    shape: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", shape_of(self.config))

    def key(self, setting: Setting) -> str:
        """Return the name of a result in the cache: the content that decides how long the setting takes.

        Args:
            setting: one of `settings`.
        """
        if setting.runtime == "tokenizer":
            folder = Path(str(self.tokenizer))
            what: Any = artifacts.folder_digest(folder, _TOKENIZER_FILES) if folder.is_dir() else str(self.tokenizer)
        elif setting.runtime == "onnxruntime" and self.quantised:
            what = artifacts.checksum(Path(str(self.onnx)))
        else:
            what = self.shape
        return artifacts.digest(what, asdict(setting))

    def as_json(self, settings: Sequence[Setting]) -> dict[str, Any]:
        """Return what the child process needs to measure some of the settings.

        Args:
            settings: the settings that no earlier result covers.
        """
        return {
            "config": self.config.to_dict(),
            "onnx": None if self.onnx is None else str(self.onnx.absolute()),
            "tokenizer": self.tokenizer,
            "settings": [asdict(setting) for setting in settings],
        }


def measure_latency(
    targets: Sequence[Target],
    *,
    runs: int = RUNS,
    seconds: float = SECONDS,
    again: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[Latency]]:
    """Return the latency of each target at each of its settings.

    Args:
        targets: the models.
        runs: timed runs at each setting, after a warm-up.
        seconds: time for one setting, after which fewer runs are enough, but at least 5.
        again: measure what an earlier call has measured, too.
        progress: called with the number of settings that are measured, and of all that have to be.

    Returns:
        For each target its latencies, in the order of its settings.

    Raises:
        FsdTuneError: the child process failed.
    """
    known = {} if again else _known()

    def key(target: Target, setting: Setting) -> str:
        # A short measurement does not stand for a long one.
        return f"{target.key(setting)}-{runs}-{seconds:g}"

    results: list[dict[Setting, Latency]] = []
    requests: list[tuple[int, list[Setting]]] = []
    for index, target in enumerate(targets):
        entries = {setting: known.get(key(target, setting)) for setting in target.settings}
        results.append({setting: entry for setting, entry in entries.items() if entry is not None})
        if missing := [setting for setting in target.settings if setting not in results[index]]:
            requests.append((index, missing))
    total = sum(len(missing) for _, missing in requests)
    if total:
        document = {
            "runs": runs,
            "seconds": seconds,
            "busy": BUSY_SPREAD,
            "targets": [targets[index].as_json(missing) for index, missing in requests],
        }
        fresh: dict[str, Latency] = {}
        for answer in _ask(document, lambda done: progress(done, total)):
            index, missing = requests[answer["target"]]
            latency = Latency.from_json(answer["latency"])
            results[index][latency.setting] = latency
            fresh[key(targets[index], latency.setting)] = latency
        cache.add({name: latency.as_json() for name, latency in fresh.items() if not latency.is_noisy})
    return [[found[setting] for setting in target.settings] for target, found in zip(targets, results, strict=True)]


def noise_warnings(latencies: Sequence[Latency]) -> list[str]:
    """Return a sentence about results that a busy machine has made unreliable; nothing if there are none.

    Args:
        latencies: any results.
    """
    noisy = [latency for latency in latencies if latency.is_noisy]
    if not noisy:
        return []
    worst = max(noisy, key=lambda latency: latency.spread)
    return [
        f"{len(noisy)} of {len(latencies)} latencies vary by more than {BUSY_SPREAD:.0%} although they were measured "
        f"twice ({worst.setting.text}: by {worst.spread:.0%}): other programs use this machine "
        f"({Machine.current().text}). Measure again when it is idle."
    ]


def _known() -> dict[str, Latency]:
    """Return the latencies in the cache; entries that cannot be read are left out."""
    known = {}
    for name, entry in cache.read().items():
        with contextlib.suppress(KeyError, TypeError):
            known[name] = Latency.from_json(entry)
    return known


def _ask(document: dict[str, Any], progress: Callable[[int], None]) -> list[dict[str, Any]]:
    """Return the answers of the child process, the last one to each setting."""
    answers: dict[tuple[int, int], dict[str, Any]] = {}
    # A file, because a pipe that nobody reads would stop the child when it is full.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        command = python("-m", "fsd_tune.profiling.process")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8"
        ) as child:
            assert child.stdin is not None and child.stdout is not None
            try:
                with contextlib.suppress(BrokenPipeError):  # It ended, and its exit code is read below.
                    child.stdin.write(json.dumps(document))
                    child.stdin.close()
                for line in child.stdout:
                    answer = json.loads(line)
                    answers[answer["target"], answer["setting"]] = answer
                    progress(len(answers))
            except BaseException:
                child.kill()
                raise
        if child.returncode:
            errors.seek(0)
            reason = (errors.read().strip().splitlines() or [f"exit code {child.returncode}"])[-1]
            raise FsdTuneError(f"The process that measures latency failed: {reason}")
    return list(answers.values())
