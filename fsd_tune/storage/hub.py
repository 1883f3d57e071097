"""Ask the Hugging Face hub for a model or data set, and switch its libraries to their local caches.

The hub is asked once with a time limit, because its libraries would retry six times with growing pauses.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Literal

from fsd_tune.storage.uri import local_path

TIMEOUT_S = 10.0
# An answer is reused for this time, so that reading the configuration, tokenizer and weights of a model asks once.
_ANSWER_COUNTS_S = 60.0
_answers: dict[tuple[str, str], tuple[float, str]] = {}


def cached_if_unreachable(name: str) -> AbstractContextManager[None]:
    """Return a context in which models are loaded from the local cache only, if the hub does not provide the model.

    Otherwise each load of a cached model would wait for the hub again.

    Args:
        name: a hub id, or a folder, for which nothing is switched.
    """
    return offline(not local_path(name).is_dir() and bool(unreachable("model", name)))


@contextmanager
def offline(enabled: bool) -> Iterator[None]:
    """Make the hub's libraries read only their local caches while the block runs.

    Args:
        enabled: False leaves the libraries as they are.
    """
    previous_values = [module.HF_HUB_OFFLINE for module in _switches()]
    try:
        for module, value in zip(_switches(), previous_values, strict=True):
            vars(module)["HF_HUB_OFFLINE"] = enabled or value
        yield
    finally:
        for module, value in zip(_switches(), previous_values, strict=True):
            vars(module)["HF_HUB_OFFLINE"] = value


def unreachable(kind: Literal["model", "dataset"], name: str) -> str:
    """Return why the hub does not provide a model or data set, in one line; empty if it does.

    An answer is reused for a minute, so that the steps of loading a model ask once.

    Args:
        kind: `model` or `dataset`.
        name: the hub id.
    """
    asked_at, reason = _answers.get((kind, name), (-float("inf"), ""))
    if time.monotonic() - asked_at > _ANSWER_COUNTS_S:
        reason = _ask(kind, name)
        _answers[kind, name] = (time.monotonic(), reason)
    return reason


def _ask(kind: str, name: str) -> str:
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        if kind == "model":
            api.model_info(name, timeout=TIMEOUT_S)
        else:
            api.dataset_info(name, timeout=TIMEOUT_S)
    except Exception as error:  # Several libraries raise errors; the user needs only the reason.
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def _switches() -> list[ModuleType]:
    """Return the modules with an offline switch; both libraries read the environment only at import."""
    import huggingface_hub

    modules = [huggingface_hub.constants]
    return [*modules, sys.modules["datasets.config"]] if "datasets.config" in sys.modules else modules
