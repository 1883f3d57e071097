"""The process that measures latency: it reads a request on standard input and prints one JSON line for each result.

It runs nothing else, so that threads, caches and memory of a search or a server do not disturb it.
"""

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsd_tune.models.inputs import reads_types
from fsd_tune.models.loader import load_tokenizer, new_model
from fsd_tune.models.onnx import input_names, open_session, random_batch, write_onnx
from fsd_tune.models.quiet import quiet_transformers
from fsd_tune.profiling.latency import Latency, Setting

_WARM_UP_RUNS = 5
_WARM_UP_SECONDS = 0.2
_LEAST_RUNS = 5
# A percentile needs as many runs as that one of them lies beyond it.
_RUNS_FOR_P90 = 10
_RUNS_FOR_P99 = 100


class Runner:
    """A model of one target, which makes a function that runs one batch at a setting.

    Args:
        target: the request for the target; see `latency.Target.as_json`.
        folder: a folder for an exported ONNX file.
    """

    def __init__(self, target: dict[str, Any], folder: Path) -> None:
        from transformers import CONFIG_MAPPING

        self._config = CONFIG_MAPPING[target["config"]["model_type"]].from_dict(target["config"])
        self._onnx = None if target["onnx"] is None else Path(target["onnx"])
        self._tokenizer = target["tokenizer"]
        self._folder = folder
        self._model: Any = None

    def batch_of(self, setting: Setting) -> Callable[[], object]:
        """Return a function that computes one batch.

        Args:
            setting: the runtime, its threads, and the size of the batch.
        """
        if setting.runtime == "tokenizer":
            return self._tokenizing(setting)
        return self._torch(setting) if setting.runtime == "torch" else self._onnxruntime(setting)

    def _loaded(self) -> Any:
        if self._model is None:
            torch.manual_seed(0)
            self._model = new_model(self._config).eval()
        return self._model

    def _torch(self, setting: Setting) -> Callable[[], object]:
        torch.set_num_threads(setting.threads)
        model = self._loaded().to(setting.device)
        names = [name for name in input_names(model) if name != "token_type_ids" or reads_types(model)]
        batch = {name: value.to(setting.device) for name, value in self._batch(setting, names).items()}

        def run() -> None:
            with torch.inference_mode():
                model(**batch)
            if setting.device == "cuda":
                torch.cuda.synchronize()

        return run

    def _onnxruntime(self, setting: Setting) -> Callable[[], object]:
        if self._onnx is None:
            model = self._loaded().to("cpu")
            self._onnx = self._folder / "model.onnx"
            write_onnx(self._onnx, model, input_names(model))
        session = open_session(self._onnx, setting.threads)
        names = [node.name for node in session.get_inputs()]
        batch = {name: value.numpy() for name, value in self._batch(setting, names).items()}
        return lambda: session.run(["logits"], batch)

    def _tokenizing(self, setting: Setting) -> Callable[[], object]:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if setting.threads > 1 else "false"
        tokenizer = load_tokenizer(self._tokenizer)
        # Whole words of the vocabulary, as many as the setting has tokens; longer texts are cut.
        words = [word for word in tokenizer.get_vocab() if word.isalpha() and word.isascii()] or ["word"]
        rng = np.random.default_rng(0)
        texts = [" ".join(rng.choice(words, setting.length)) for _ in range(setting.batch)]
        return lambda: tokenizer(texts, truncation=True, max_length=setting.length, padding=True, return_tensors="np")

    def _batch(self, setting: Setting, names: list[str]) -> dict[str, torch.Tensor]:
        return random_batch(self._config, names, [setting.length] * setting.batch)


def measure(setting: Setting, run: Callable[[], object], runs: int, seconds: float) -> Latency:
    """Return the latency of a function after a warm-up.

    Args:
        setting: what the function computes.
        run: computes one batch.
        runs: number of timed runs.
        seconds: time after which fewer runs are enough, but at least 5.
    """
    started = time.perf_counter()
    for _ in range(_WARM_UP_RUNS):
        run()
        if time.perf_counter() - started > _WARM_UP_SECONDS:
            break
    times: list[float] = []
    gc.disable()
    started = time.perf_counter()
    while len(times) < runs and (len(times) < _LEAST_RUNS or time.perf_counter() - started < seconds):
        before = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - before))
    gc.enable()
    p10, p50, p90, p99 = (round(float(value), 4) for value in np.percentile(times, (10, 50, 90, 99)))
    return Latency(
        setting,
        p50_ms=p50,
        p90_ms=p90 if len(times) >= _RUNS_FOR_P90 else None,
        p99_ms=p99 if len(times) >= _RUNS_FOR_P99 else None,
        runs=len(times),
        spread=round((p90 - p10) / p50, 4) if p50 else 0.0,
    )


def answers(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the latency of each target at each setting; a noisy one again, if its second try is steadier.

    Args:
        request: {"runs", "seconds", "busy": largest spread of an idle machine, "targets"}; see `Target.as_json`.
    """
    with ExitStack() as stack:
        for index, target in enumerate(request["targets"]):
            runner = Runner(target, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            settings = [Setting(**values) for values in target["settings"]]
            first: list[Latency] = []
            for attempt in range(2):
                for number, setting in enumerate(settings):
                    if attempt and first[number].spread <= request["busy"]:
                        continue
                    found = measure(setting, runner.batch_of(setting), request["runs"], request["seconds"])
                    if not attempt:
                        first.append(found)
                    elif found.spread >= first[number].spread:
                        continue
                    yield {"target": index, "setting": number, "latency": found.as_json()}


def main() -> None:
    """Answer the request on standard input."""
    # Libraries print on standard output, too.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as results:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        quiet_transformers()
        for answer in answers(json.load(sys.stdin)):
            print(json.dumps(answer), file=results, flush=True)


if __name__ == "__main__":
    main()
