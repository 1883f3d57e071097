"""Find out on what the trials of a search compute: the device, the GPUs of each trial, and GPUs that stay idle."""

from dataclasses import dataclass

import torch

from fsd_tune.cluster import connection, nodes
from fsd_tune.device import select_device
from fsd_tune.errors import InputError
from fsd_tune.settings.loader import Settings


@dataclass(frozen=True)
class Accelerator:
    """The device of a search's trials.

    Attributes:
        device: cpu or cuda.
        native_bf16: whether the GPUs of the cluster multiply bfloat16 natively; None if this machine computes, which
            can be asked at any time.
    """

    device: str
    native_bf16: bool | None = None


def choose(settings: Settings, device: str, address: str | None = None) -> Accelerator:
    """Return the device of the trials. A cluster is asked for its GPUs, this machine otherwise.

    Args:
        settings: the settings of the search.
        device: auto, cpu or cuda. auto is cuda where there are GPUs, unless `resources.gpus_per_trial` is 0.
        address: the cluster's address, as for `connection.connect`.

    Raises:
        InputError: a GPU is asked for, but there is none, or the trials are given none.
        FsdTuneError: the cluster cannot be reached.
    """
    share = settings.resources.gpus_per_trial
    if device == "cuda" and share == 0:
        raise InputError("--gpus-per-trial: found 0, but must be auto or above 0 with --device cuda.")
    wanted = "--device: found cuda" if device == "cuda" else f"resources.gpus_per_trial: found {share}"
    if device == "auto" and share != "auto":
        device = "cuda" if share else "cpu"
    if not connection.elsewhere(address):
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError(f"{wanted}, but this machine has no CUDA device that torch sees.")
        return Accelerator(select_device(device).type)
    if device == "cpu":
        return Accelerator("cpu")
    with connection.connect(address):
        if not connection.has_gpus():
            if device == "cuda":
                raise InputError(f"{wanted}, but no node of this cluster has a GPU.")
            return Accelerator("cpu")
        return Accelerator("cuda", settings.precision != "auto" or nodes.gpus_multiply_bf16())


def gpus_for(settings: Settings, device: str) -> float:
    """Return the GPUs of a trial before its GPU memory is measured; `auto` gives a whole GPU.

    Args:
        settings: the settings of the search.
        device: `cpu` or `cuda`.
    """
    share = settings.resources.gpus_per_trial
    return share if not isinstance(share, str) else float(device == "cuda")


def idle_note(settings: Settings, device: str) -> str:
    """Return a line about GPUs of the connected cluster that no trial uses; empty if there are none.

    Args:
        settings: the settings of the search.
        device: as the user gave it: auto, cpu or cuda.
    """
    import ray

    gpus = sum(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"])
    if not gpus:
        return ""
    if device == "cpu":
        reason = "--device cpu; --device auto uses them"
    elif settings.resources.gpus_per_trial == 0:
        reason = "resources.gpus_per_trial is 0; auto uses them"
    else:
        reason = f"torch {torch.__version__} sees no CUDA device"
    return f"{gpus:g} GPU{'s are' if gpus != 1 else ' is'} not used: {reason}."
