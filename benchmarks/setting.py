"""The inputs of the benchmarks: real sentences; MiniLM on a CPU, BERT-base of random weights on a GPU."""

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import generated_pairs
from fsd_tune.data import demo_input
from fsd_tune.data.batching import tokenize
from fsd_tune.data.splits import get_task
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import BuiltMemory, build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.folder import write_model
from fsd_tune.models.loading import ModelInfo, load_tokenizer, load_with_new_head
from fsd_tune.settings import loader
from fsd_tune.settings.configuration import resolve
from fsd_tune.training.distiller import Distiller
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import Inputs, load_train_and_dev


@dataclass(frozen=True)
class Setting:
    """Where a benchmark runs and on what.

    Attributes:
        device: cpu or cuda.
        teacher: its folder.
        data: a folder in GLUE's layout.
        folder: for memories.
        student_layers, max_length, batch_size, centroids, examples: the sizes.
        task: the id of the task in `data`.
    """

    device: str
    teacher: Path
    data: Path
    folder: Path
    student_layers: int
    max_length: int
    batch_size: int
    centroids: int
    examples: int
    task: str = "sst2"

    def describe(self) -> str:
        """One line for the table's head."""
        processor = torch.cuda.get_device_name() if self.device == "cuda" else _processor()
        return (
            f"{processor}, {torch.get_num_threads()} threads; {self.student_layers}-layer student, {self.examples} "
            f"sentences, maximum length {self.max_length}, batch {self.batch_size}, K = {self.centroids}"
        )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def make(device: str, folder: Path) -> Setting:
    """Fetch or make what the benchmarks need, below `folder`."""
    found = demo_input.fetch_demo_input(folder / "input")
    teacher = _teacher(folder / f"teacher-{device}", device, found.model, "sst2")
    if device == "cpu":
        return Setting(device, teacher, found.data, folder / "memory", 3, 128, 32, 100, 1000)
    return Setting(device, teacher, found.data, folder / "memory", 6, 128, 32, 100, 1500)


def with_pairs(setting: Setting, glue: Path | None) -> Setting:
    """Return the setting with RTE's pairs of sentences in the place of single ones.

    Args:
        setting: as `make` returns it.
        glue: a folder in GLUE's layout with RTE; None for generated pairs of RTE's lengths.
    """
    folder = setting.folder.parent
    if glue is None:
        generated_pairs.write(folder / "pairs", setting.examples)
    found = demo_input.fetch_demo_input(folder / "input")
    teacher = _teacher(folder / f"teacher-{setting.device}-pairs", setting.device, found.model, "rte")
    return replace(setting, task="rte", data=glue or folder / "pairs", teacher=teacher)


def _teacher(folder: Path, device: str, base: Path, task: str) -> Path:
    if not (folder / "config.json").is_file():
        model = load_with_new_head(str(base), get_task(task), 0) if device == "cpu" else _bert_base()
        write_model(folder, model, load_tokenizer(str(base)), {"base": str(base.resolve())})
    return folder


def _bert_base() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(num_labels=2))


def artefacts(
    setting: Setting, method: str, precision: str, **flags: str
) -> tuple[MemorySpec, BuiltMemory | None, DistillerFactory]:
    """A workbench for one method; its artefacts are shared by all."""
    start = "copy" if setting.device == "cpu" else "teacher"
    given = {
        "method": method,
        "student-layers": setting.student_layers,
        "student-start": start,
        "batch-size": setting.batch_size,
        "data-max-length": setting.max_length,
        "data-train-limit": setting.examples,
        "memory-centroids": setting.centroids,
        "epochs": 1000,
        "precision": precision,
    } | {name.replace("_", "-"): value for name, value in flags.items()}
    settings = loader.load(None, loader.parse_flags([f"--{k}={v}" for k, v in given.items()]))
    task = get_task(setting.task)
    splits = load_train_and_dev(task, setting.data)
    tokenizer = load_tokenizer(str(setting.teacher))
    train, dev = (
        tokenize(splits[name], tokenizer, setting.max_length, limit)
        for name, limit in (("train", setting.examples), ("dev", None))
    )
    inputs = Inputs(task, _info(setting), train, dev, None, ())
    spec = MemorySpec.from_inputs(settings, inputs, setting.folder, setting.device)
    prepared = None if method == "ce" else build_artifacts(spec, lambda *_: None)
    arrays = None if prepared is None else open_arrays(prepared, mapped=False)
    return spec, prepared, DistillerFactory(settings, spec, arrays)


def _info(setting: Setting) -> ModelInfo:
    from fsd_tune.models.loading import read_model_info

    return read_model_info(str(setting.teacher))


def distiller(bench: DistillerFactory) -> Distiller:
    """A run at step 0 of the only configuration that the workbench's settings have."""
    made = bench.distiller(resolve(bench.settings), reports=1)
    made.model.train()
    return made
