"""Read models and tokenizers with transformers: every `from_pretrained` of the package is here.

Others may have written a model's folder. Its code is never run, nothing is asked on standard input, and its
configuration only describes the model: how the model is used is decided by this package.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fsd_tune.errors import InputError, nearest
from fsd_tune.models.local_checks import weight_files
from fsd_tune.models.quiet import transformers_quiet
from fsd_tune.storage import hub

# Entries of a config.json that say how a model is used, not what it is; transformers' defaults take their place.
_USE = frozenset(
    {
        "_attn_implementation", "_attn_implementation_internal", "_experts_implementation",
        "_experts_implementation_internal", "attn_implementation", "auto_map", "chunk_size_feed_forward",
        "distributed_config", "dtype", "experts_implementation", "fusion_config", "gradient_checkpointing",
        "kernel_config", "output_attentions", "output_hidden_states", "problem_type", "reference_compile",
        "return_dict", "tie_last_hidden_states", "torch_dtype", "torchscript", "transformers_weights", "use_bfloat16",
        "use_cache", "use_kernels", "use_return_dict",
    }
)  # fmt: skip
_QUANTISED = ("quantization_config", "compression_config")
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Loaded:
    """A classifier and how the stored weights filled it.

    Attributes:
        model: the transformers classifier, in float32 on the CPU, in eval mode.
        missing: names of weights that are not stored; they are initialised at random.
        misshapen: (stored shape, needed shape) by the names of weights of another shape; random, too.
        unexpected: names of stored weights that the model does not have.
    """

    model: Any
    missing: frozenset[str]
    misshapen: Mapping[str, tuple[list[int], list[int]]]
    unexpected: frozenset[str]

    def stored(self) -> dict[str, torch.Tensor]:
        """Return the weights that were stored, by their names in the model."""
        new = {*self.missing, *self.misshapen}
        return {name: value for name, value in self.model.state_dict().items() if name not in new}


def load_config(path: str | Path, **entries: Any) -> Any:
    """Load what the configuration of a model says about the model.

    Args:
        path: a folder, or a hub id.
        **entries: replace entries of the configuration, such as `label_config`'s.

    Raises:
        ValueError: transformers has no such model, or the weights are quantised.
        OSError: it cannot be read.
    """
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    with hub.cached_if_unreachable(str(path)):
        raw, _ = PreTrainedConfig.get_config_dict(str(path))
    family = raw.get("model_type")
    if not isinstance(family, str):
        raise ValueError("it has no model_type, such as bert.")
    if family not in CONFIG_MAPPING:
        own = " The Python code that the model brings (auto_map) is never run." if raw.get("auto_map") else ""
        raise ValueError(
            f"transformers has no model_type {family!r}; its own are bert, roberta, modernbert and others."
            f"{own or nearest(family, CONFIG_MAPPING.keys())}"
        )
    quantised = next((raw[name] for name in _QUANTISED if raw.get(name)), None)
    if quantised is not None:
        method = quantised.get("quant_method", "") if isinstance(quantised, dict) else ""
        raise ValueError(
            f"its weights are quantised{f' ({method})' * bool(method)}, but must be plain float32, float16 or "
            "bfloat16; give the model that was quantised, or save_pretrained what model.dequantize() returns."
        )
    config = CONFIG_MAPPING[family].from_dict({name: value for name, value in raw.items() if name not in _USE})
    config.name_or_path = str(path)
    for name, value in entries.items():
        setattr(config, name, value)
    return config


@transformers_quiet()
def load_tokenizer(path: str | Path) -> Any:
    """Load the tokenizer of a model's folder or hub id.

    Args:
        path: a folder, or a hub id.
    """
    from transformers import AutoTokenizer

    with hub.cached_if_unreachable(str(path)):
        return AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)


def new_model(config: Any) -> Any:
    """Return a sequence classifier with random weights, in float32 on the device of the context.

    Args:
        config: a transformers configuration.
    """
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32, trust_remote_code=False)


@transformers_quiet()
def load_model(path: str | Path, config: Any) -> Loaded:
    """Load a sequence classifier.

    Args:
        path: a folder, or a hub id.
        config: its configuration, of `load_config`.
    """
    if Path(path).is_dir():
        with _stored(Path(path)) as weights:
            return fill(config, weights)
    from transformers import AutoModelForSequenceClassification

    with hub.cached_if_unreachable(str(path)):
        return _loaded(
            AutoModelForSequenceClassification.from_pretrained(
                str(path), config=config, weights_only=True, trust_remote_code=False, **_OPTIONS
            )
        )


@transformers_quiet()
def try_weights(folder: Path, config: Any) -> Loaded:
    """Load a folder as `load_model` does, but from names and shapes alone, without reading any value.

    Args:
        folder: a model's folder.
        config: its configuration.

    Returns:
        As `load_model`, with a model whose weights are zero.

    Raises:
        ValueError: weights are stored as integers, or in 8 bits.
    """
    zeros = {}
    with _stored(folder) as weights:
        for name, value in weights.items():
            if name.endswith("weight") and value.get_dtype() not in _FLOATS:
                raise ValueError(
                    f"its weights are quantised ({name} is {value.get_dtype()}), but must be float32, float16 or "
                    "bfloat16."
                )
            zeros[name] = torch.zeros(()).expand(value.get_shape())
    return fill(config, zeros)


@transformers_quiet()
def fill(config: Any, weights: Mapping[str, Any]) -> Loaded:
    """Let transformers' loader make a sequence classifier from weights, under the names of a file or of a model.

    Args:
        config: the transformers configuration.
        weights: tensors, or slices of a safetensors file.
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    return _loaded(kind.from_pretrained(None, config=config, state_dict=dict(weights), **_OPTIONS))


def missing_weights(loaded: Loaded, path: str | Path, flag: str, head: bool) -> list[str]:
    """Return the problem of a model whose stored weights do not fill it; empty if they do.

    Args:
        loaded: the model.
        path: where it comes from.
        flag: the flag or setting that errors name.
        head: whether its classification head is needed, too. Without it, the pooler may be missing as well, because
            a model that predicts words has none.
    """
    prefix = f"{loaded.model.base_model_prefix}."

    def needed(name: str) -> bool:
        return head or (name.startswith(prefix) and not name.startswith(f"{prefix}pooler."))

    missing = sorted(filter(needed, loaded.missing))
    misshapen = sorted(filter(needed, loaded.misshapen))
    encoder = [name for name in missing if name.startswith(prefix)]
    if encoder:
        instead = f"; it stores {min(loaded.unexpected)} instead" if loaded.unexpected else ""
        return [
            f"{flag}: {path} lacks {len(encoder)} of the weights that its config.json needs: {encoder[0]}{instead}."
        ]
    if missing:
        return [
            f"{flag}: {path} has no classification head ({missing[0]} is missing), but must be fine-tuned; "
            "`fsd-tune teacher` does that."
        ]
    if misshapen:
        name, (found, expected) = misshapen[0], loaded.misshapen[misshapen[0]]
        return [
            f"{flag}: {path} has {len(misshapen)} weights of another shape than its config.json says: {name} is "
            f"{found}, must be {expected}."
        ]
    return []


def require_weights(loaded: Loaded, path: str | Path, head: bool = True) -> Loaded:
    """Return a model that was loaded for use, if its stored weights fill it.

    Args:
        loaded: the model.
        path: where it comes from.
        head: as for `missing_weights`.

    Raises:
        InputError: they do not. A folder was checked before, so this concerns models of the hub.
    """
    problems = missing_weights(loaded, path, "model", head)
    if problems:
        raise InputError(problems)
    return loaded


_OPTIONS: dict[str, Any] = {"dtype": torch.float32, "ignore_mismatched_sizes": True, "output_loading_info": True}


def _loaded(answer: tuple[Any, Mapping[str, Any]]) -> Loaded:
    model, report = answer
    misshapen = {name: (list(stored), list(needed)) for name, stored, needed in report["mismatched_keys"]}
    return Loaded(model, frozenset(report["missing_keys"]), misshapen, frozenset(report["unexpected_keys"]))


@contextmanager
def _stored(folder: Path) -> Iterator[dict[str, Any]]:
    """Open the files of a folder's weights, which yield slices that are read when they are used."""
    from safetensors import safe_open

    with ExitStack() as stack:
        weights: dict[str, Any] = {}
        for file in weight_files(folder):
            opened = stack.enter_context(safe_open(file, framework="pt"))
            weights |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        yield weights
