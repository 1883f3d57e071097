"""The room of a cluster for trials, and how many of them share a GPU."""

from dataclasses import dataclass
from typing import Any

from fsd_tune.cluster import nodes
from fsd_tune.cluster.task_pool import as_task
from fsd_tune.memory.build import BuiltMemory
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.settings.loader import Settings


@dataclass(frozen=True)
class Capacity:
    """The capacity of the cluster for trials.

    Attributes:
        gpus: the number of GPUs of a trial, which may be a fraction.
        workers: the number of trials that run at the same time.
        needs: the requirements that every node must meet.
    """

    gpus: float
    workers: int
    needs: nodes.Needs


def share_of_a_gpu(settings: Settings, spec: MemorySpec, memory: tuple[Any, BuiltMemory] | None) -> tuple[float, str]:
    """Return the fraction of a GPU that a trial requests, and the reason in words, after a probe on a GPU node.

    Args:
        settings: the settings of the search.
        spec: the specification of its memory.
        memory: the memory's actor and the built memory; None for a search of `ce` alone.

    Raises:
        FsdTuneError: not even one trial fits.
    """
    import ray

    from fsd_tune.search import gpu_packing
    from fsd_tune.search.trial import probe

    found = ray.get(as_task(probe, gpus=1).remote(settings, spec, memory))
    if gpu_packing.keeps_busy(found):
        reason = f"a trial keeps it busy (the host needs {found.host_seconds / found.step_seconds:.0%} of a step)"
    else:
        reason = f"a trial takes {found.peak_bytes / 1e9:.1f} of the {found.free_bytes / 1e9:.1f} GB that are free"
    return gpu_packing.gpu_share(found), reason
