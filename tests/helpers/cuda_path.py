"""The CUDA path on pretend tensors, case by case: `python -m tests.helpers.cuda_path FOLDER [--every]`.

Prints one JSON object: for each case its error, or an empty text. `tests/unit/training/test_cuda_path.py` runs it.
"""

import itertools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.utils._pytree import tree_map

from benchmarks.operations import OperationCounter
from fsd_tune import losses
from fsd_tune.data.batching import collate
from fsd_tune.memory import build, kmeans, published_kmeans, teacher_memory, teacher_outputs
from fsd_tune.models import inference
from fsd_tune.models.inference import predict
from fsd_tune.models.layer_cka import layer_cka
from fsd_tune.settings.methods import METHODS
from fsd_tune.training import distiller as training_distiller
from fsd_tune.training import setup
from tests.helpers import families, pretend_cuda, random_runs
from tests.helpers.pretend_cuda import CUDA
from tests.helpers.random_runs import FIVE_PAIRS, ONE_PAIR

PRECISIONS = ("float32", "bf16")
# DeBERTa-v2 sends one number to the GPU in every forward pass (`make_log_bucket_position`), for which the host waits.
UPLOADS = {"deberta-v2": "modeling_deberta_v2.py"}
# DeBERTa cannot be trained in bf16 by its own code, and Longformer asks for values, which fake tensors have not.
NOT_PRETENDED = ("deberta", "longformer")
# A base of most others, one without token types, and two with masks and layers of their own.
FEW_FAMILIES = ("roberta", "distilbert", "modernbert", "deberta-v2")
Case = Callable[[Path], None]


def _check_parts(run: Any) -> None:
    """Weights, student memory and the optimiser's state are float32 on the GPU."""
    parts = [*run.model.parameters(), *([] if run.memory is None else [run.memory])]
    state = [value for part in parts for value in run.optimizer.state[part].values()]
    for value in [*parts, *state]:
        assert (value.device.type, value.dtype) == ("cuda", torch.float32), (value.device, value.dtype)


def _step(waits: str = "", **given: Any) -> None:
    """A step neither mixes devices or dtypes nor waits, except for what `waits` names."""
    run = random_runs.distiller(device=CUDA, **given)
    if run.setup.targets is not None:
        # What is made once in a run may wait.
        rows = run.schedule.rows(0)
        run.setup.targets.batch(rows, collate(run.setup.train, rows, CUDA, pad_to=random_runs.LENGTH))
    with OperationCounter("cuda") as counter:
        run.train_step()
    _check_parts(run)
    unexpected = {place: count for place, count in counter.waits.items() if not waits or waits not in place}
    assert not unexpected, f"the host waits: {unexpected}"
    assert not waits or counter.waits, f"nothing waits in {waits} any more; take it from the exceptions"


def _save_and_load(folder: Path) -> None:
    """A run goes on from a checkpoint that a run on a GPU has written."""
    saved: list[Any] = []

    def save(state: Any, path: Path) -> None:
        saved.append(state)
        path.touch()

    def load(path: Path, map_location: str, weights_only: bool) -> Any:
        moved = tree_map(lambda value: value.to(map_location) if isinstance(value, torch.Tensor) else value, saved[0])
        return moved | {"random": saved[0]["random"]}

    run = random_runs.distiller("fsd_g", device=CUDA)
    run.train_step()
    # Weights without values cannot be written to a file.
    run.model.save_pretrained = lambda path: Path(path).mkdir(parents=True)
    (folder / "checkpoint").mkdir()
    again = random_runs.distiller("fsd_g", device=CUDA)
    with (
        mock.patch.object(torch, "save", save),
        mock.patch.object(torch, "load", load),
        mock.patch.object(training_distiller, "load_finished", lambda path: random_runs.classifier()),
    ):
        run.save(folder / "checkpoint")
        again.load(folder / "checkpoint")
    assert again.step == 1
    again.train_step()
    _check_parts(again)


def _evaluate(precision: str) -> None:
    model = random_runs.classifier().to(CUDA)
    data = random_runs.split()
    with OperationCounter("cuda") as counter, mock.patch.object(inference, "EVALUATION_BATCH", 4):
        logits = predict(model, data, precision, CUDA)
    assert logits.shape == (len(data), 2) and logits.dtype == "float32"
    assert sum(counter.waits.values()) == 1, f"once for all logits: {counter.waits}"


def _teacher_pass(folder: Path, precision: str, padding: str) -> None:
    data = random_runs.split()
    model = random_runs.classifier(layers=random_runs.TEACHER_LAYERS)
    teacher_outputs.write_outputs(
        folder / "outputs", model, (1, 0), data, (1, 2), padding, precision, CUDA, lambda *_: None
    )
    stored = teacher_outputs.read_outputs(folder / "outputs", mapped=True)
    assert len(stored) == len(data) and stored.width(2) == random_runs.HIDDEN


def _memory(folder: Path, algorithm: str, sketched: bool) -> None:
    outputs = random_runs.outputs(random_runs.split(), "masked")
    start = torch.randn(random_runs.CENTROIDS, random_runs.LENGTH * random_runs.HIDDEN)
    with (
        mock.patch.object(kmeans, "SKETCH_SIZE", 8 if sketched else 10_000),
        mock.patch.object(published_kmeans, "start", lambda *_: start),  # It reads values on the CPU.
    ):
        teacher_memory.write_memory(
            folder / "memory", outputs, 1, random_runs.CENTROIDS, algorithm, lambda *_: None, CUDA
        )
    memory = teacher_memory.read_memory(folder / "memory", mapped=True)
    assert memory.distances.shape == (random_runs.EXAMPLES, random_runs.CENTROIDS)


def _student_memory(precision: str, padding: str) -> None:
    held, data = random_runs.memory(), random_runs.split()
    spec = SimpleNamespace(
        students=(None,),
        teacher=None,
        task="sst2",
        seed=0,
        device="cuda",
        stored=data,
        precision=precision,
        padding=padding,
    )
    builder = build._Builder(spec, lambda *_: None, True)  # type: ignore[arg-type]
    with mock.patch.object(build, "build_student", lambda *_: random_runs.classifier()):
        means = builder._student_means(None, held.clusters, held.sizes, 1)  # type: ignore[arg-type]
    assert len(means) == random_runs.CENTROIDS


def _layer_cka(precision: str) -> None:
    teacher, student = (random_runs.classifier(layers=layers) for layers in (2, 1))
    assert len(layer_cka(teacher, student, random_runs.split(), CUDA, precision)) == 2


@contextmanager
def _fault(name: str) -> Iterator[None]:
    """A mistake in a step, as someone could make it."""
    global_parts = losses.global_parts

    def collated(*arguments: Any, **named: Any) -> Any:
        batch = collate(*arguments, **named)
        if name == "a value is read":
            batch["attention_mask"].sum().item()
        if name == "a tensor stays on the CPU":
            batch["labels"] = torch.zeros(len(batch["labels"]), dtype=torch.int64)
        if name == "a copy waits":
            batch["labels"] = torch.zeros(len(batch["labels"]), dtype=torch.int64).to(CUDA)
        if name == "a copy to the host":
            batch["labels"].cpu()
        return batch

    def mixed(targets: Any, feature: Any, memory: Any, distance: str) -> Any:
        if name == "bf16 meets float32":
            (feature.to(torch.bfloat16) @ memory[:, : feature.shape[1]].T).sum()
        return global_parts(targets, feature, memory, distance)

    with mock.patch.object(setup, "collate", collated), mock.patch.object(losses, "global_parts", mixed):
        yield


FAULTS = {
    "a value is read": "DataDependentOutput",
    "a tensor stays on the CPU": "device",
    "bf16 meets float32": "mm of torch.bfloat16 and torch.float32",
    "a copy waits": "the host waits: {'_to_copy",
    "a copy to the host": "the host waits: {'_to_copy",
}


def _faulty(name: str) -> None:
    """The case fails if the fault is not found."""
    try:
        with _fault(name):
            _step(method="fsd_g")
    except Exception as error:
        assert FAULTS[name] in f"{type(error).__name__}: {error}", f"found otherwise: {error!r}"
    else:
        raise AssertionError("not found")


def _few(method: str, *chosen: bool) -> bool:
    """Whether a step is among the few of its method."""
    if method == "fsd_ilg":
        return sum(chosen) in (0, 3)  # Any two choices meet in these five of the sixteen.
    return sum(chosen) in (0, 2 if method == "ce" else 4)


def cases(every: bool) -> dict[str, Case]:
    """The cases by name.

    Args:
        every: all combinations and families, instead of a choice in which each value of everything has its cases.
    """
    made: dict[str, Case] = {}

    def add(name: str, case: Callable[..., None], *arguments: Any, folder: bool = False, **given: Any) -> None:
        made[name] = lambda place: case(*((place,) if folder else ()), *arguments, **given)

    for method in METHODS:
        for choice in itertools.product(PRECISIONS, (ONE_PAIR, FIVE_PAIRS), ("masked", "published"), (False, True)):
            precision, pairs, padding, live = choice
            if method == "ce" and (pairs == FIVE_PAIRS or live):
                continue  # It has neither pairs nor a teacher.
            chosen = (precision == "bf16", pairs == FIVE_PAIRS, padding == "published", live)
            if every or _few(method, *chosen):
                words = ("five pairs" if pairs == FIVE_PAIRS else "one pair", padding, "live" if live else "cached")
                add(
                    f"step {method} {precision} {' '.join(words)}", _step, method=method, precision=precision,
                    pairs=pairs, padding=padding, live=live, distance="raw" if live else "relative",
                )  # fmt: skip
    for precision in PRECISIONS:
        add(f"evaluation {precision}", _evaluate, precision)
        add(f"layer CKA {precision}", _layer_cka, precision)
        for padding in ("masked", "published"):
            add(f"teacher pass {precision} {padding}", _teacher_pass, precision, padding, folder=True)
            add(f"student memory {precision} {padding}", _student_memory, precision, padding)
    for family in (*families.FAMILIES, *families.MORE) if every else FEW_FAMILIES:
        if family not in NOT_PRETENDED:
            waits = UPLOADS.get(family, "")
            add(f"family {family} bf16", _step, waits, method="fsd_ilg", family=family, precision="bf16")
    add("memory by k-means of features", _memory, "kmeans", False, folder=True)
    add("memory by k-means of sketches", _memory, "kmeans", True, folder=True)
    add("memory as published", _memory, "published", False, folder=True)
    add("step of two batches", _step, method="fsd_ilg", precision="bf16", accumulation=2)
    add("save and load", _save_and_load, folder=True)
    for fault in FAULTS:
        add(f"fault: {fault}", _faulty, fault)
    return made


def main() -> None:
    """Run every case and print the errors by name."""
    torch.set_num_threads(1)
    pretend_cuda.install()
    found: dict[str, str] = {}
    for number, (name, case) in enumerate(cases(every="--every" in sys.argv).items()):
        folder = Path(sys.argv[1], str(number))
        folder.mkdir()
        try:
            with pretend_cuda.pretending():
                case(folder)
            found[name] = ""
        except Exception:
            found[name] = traceback.format_exc()
    print(json.dumps(found), flush=True)
    # What `install` has put into torch does not outlive the interpreter.
    os._exit(0)


if __name__ == "__main__":
    main()
