"""The inputs of the benchmarks: real sentences; MiniLM on a CPU, BERT-base of random weights on a GPU."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
        data: a GLUE-layout folder with SST-2/.
        folder: for memories.
        student_layers, max_length, batch_size, centroids, examples: the sizes.
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
    teacher = folder / f"teacher-{device}"
    if not (teacher / "config.json").is_file():
        task = get_task("sst2")
        model = load_with_new_head(str(found.model), task, 0) if device == "cpu" else _bert_base()
        write_model(teacher, model, load_tokenizer(str(found.model)), {"base": str(found.model.resolve())})
    if device == "cpu":
        return Setting(device, teacher, found.data, folder / "memory", 3, 128, 32, 100, 1000)
    return Setting(device, teacher, found.data, folder / "memory", 6, 128, 32, 100, 1500)


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
    splits = load_train_and_dev(get_task("sst2"), setting.data)
    tokenizer = load_tokenizer(str(setting.teacher))
    train, dev = (
        tokenize(splits[name], tokenizer, setting.max_length, limit)
        for name, limit in (("train", setting.examples), ("dev", None))
    )
    inputs = Inputs(get_task("sst2"), _info(setting), train, dev, None, ())
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
