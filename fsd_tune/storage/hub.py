"""Ask the Hugging Face hub whether a model or data set is there, and switch its libraries to their caches.

The hub is asked once with a time limit, because its libraries would retry six times with growing waits.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Literal

TIMEOUT_S = 10.0


def stay_offline() -> None:
    """Make the hub's libraries use their local caches only, in this process and in those that it starts."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    for module in _switches():
        vars(module)["HF_HUB_OFFLINE"] = True


@contextmanager
def offline(enabled: bool) -> Iterator[None]:
    """Make the hub's libraries use their local caches only while the block runs, if `enabled`."""
    before = [module.HF_HUB_OFFLINE for module in _switches()]
    try:
        for module, value in zip(_switches(), before, strict=True):
            vars(module)["HF_HUB_OFFLINE"] = enabled or value
        yield
    finally:
        for module, value in zip(_switches(), before, strict=True):
            vars(module)["HF_HUB_OFFLINE"] = value


def unreachable(kind: Literal["model", "dataset"], name: str) -> str:
    """Ask the hub for a model or data set.

    Args:
        kind: model or dataset.
        name: its id on the hub.

    Returns:
        Why the hub does not offer it, in one line; empty if it does.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        if kind == "model":
            api.model_info(name, timeout=TIMEOUT_S)
        else:
            api.dataset_info(name, timeout=TIMEOUT_S)
    except Exception as error:  # Errors come from several libraries, and all mean the same to a user.
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def _switches() -> list[ModuleType]:
    """Return the modules that hold HF_HUB_OFFLINE; the libraries read the environment only when imported."""
    import huggingface_hub

    loaded = [huggingface_hub.constants]
    return [*loaded, sys.modules["datasets.config"]] if "datasets.config" in sys.modules else loaded
