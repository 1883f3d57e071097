"""The machine that a latency belongs to: processor, cores, and the versions of what computes."""

import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_RUNTIMES = ("torch", "transformers", "onnxruntime", "tokenizers")


@dataclass(frozen=True)
class Machine:
    """The parts of a machine that influence latency.

    Attributes:
        processor: model of the processor, such as `AMD EPYC 7B13`.
        cores: number of logical cores that this process may use.
        gpu: model of the first GPU; None if torch sees none.
        versions: version of each runtime by name; runtimes that are not installed are left out.
    """

    processor: str
    cores: int
    gpu: str | None
    versions: dict[str, str]

    @classmethod
    @cache
    def current(cls) -> "Machine":
        """Return the machine that runs this process."""
        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
        return cls(_processor(), cores(), gpu, _versions())

    @property
    def text(self) -> str:
        """The machine in a few words, such as `AMD EPYC 7B13, 2 cores`."""
        count = f"{self.cores} core{'s' * (self.cores != 1)}"
        return ", ".join([self.processor, count, *([self.gpu] if self.gpu else [])])

    def as_json(self) -> dict[str, Any]:
        """Return the JSON value of the machine."""
        return asdict(self)


def cores() -> int:
    """Return the number of logical cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join((names or [platform.processor() or platform.machine()])[0].split())


def _versions() -> dict[str, str]:
    found = {}
    for name in _RUNTIMES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
