"""Read and check configurations and weight headers of any family of encoders, before any weight is read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsd_tune.errors import InputError
from fsd_tune.models import loader
from fsd_tune.models.local_checks import model_problems
from fsd_tune.models.quiet import transformers_quiet
from fsd_tune.storage import hub

# These families count positions from the padding token's id on, so the positions up to that id are never used.
_COUNTED_FROM_PADDING = (
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip
# Lists with an entry for each layer: ModernBERT's kinds of attention, Longformer's windows. Others may have this length
# by chance, such as DeBERTa's `pos_att_type`.
_PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "attention_window", "attn_layers")
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads")


@transformers_quiet()
def read_config(path: str, flag: str, tokenizer: bool = True) -> Any:
    """Return the transformers configuration of an encoder with one hidden state for each layer.

    Args:
        path: a folder, or a hub id.
        flag: the flag or setting that errors name.
        tokenizer: whether a folder must hold one.

    Raises:
        InputError: no such folder, no configuration, no tokenizer, no weights, or no such encoder.
    """
    problems = model_problems(path, flag, tokenizer)
    if problems:
        raise InputError(problems)
    config = _read(path, flag)
    # Families have other names of their own for these (DistilBERT's n_layers); transformers maps them.
    missing = [name for name in SIZES if not isinstance(getattr(config, name, None), int)]
    if missing:
        raise InputError(f"{flag}: {path} is no encoder: its config.json has no {', '.join(missing)}.")
    if config.is_encoder_decoder:
        raise InputError(f"{flag}: {path} is a {config.model_type}, an encoder with a decoder; give an encoder.")
    if getattr(config, "inner_group_num", 1) != 1:
        raise InputError(
            f"{flag}: {path} has {config.inner_group_num} layers in each group, but must have 1: with more, its "
            "hidden states do not match num_hidden_layers."
        )
    return config


def positions_of(config: Any) -> int | None:
    """Return the longest input that a model accepts.

    Args:
        config: the model's transformers configuration.

    Returns:
        The number of tokens; None if there is no limit or none is recorded.
    """
    positions: int | None = getattr(config, "max_position_embeddings", None)
    # DeBERTa puts distances into buckets and takes any length, unless positions are added to the words as well.
    if positions is None or not getattr(config, "position_biased_input", True):
        return None
    return positions - (config.pad_token_id + 1 if config.model_type in _COUNTED_FROM_PADDING else 0)


def narrow(config: Any, hidden_size: int) -> None:
    """Make a configuration's layers `hidden_size` wide, with heads as wide as before.

    Args:
        config: changed in place.
        hidden_size: the new width.

    Raises:
        InputError: it is not a multiple of a head's width.
    """
    before = config.hidden_size
    head = before // config.num_attention_heads
    if hidden_size % head:
        raise InputError(f"student.hidden_size: found {hidden_size}, but must be a multiple of {head}, a head's width.")
    # Some families have other names for the same width; embeddings of another width (ELECTRA) keep it.
    for name in ("embedding_size", "pooler_hidden_size"):
        if getattr(config, name, None) == before:
            setattr(config, name, hidden_size)
    inner = "hidden_dim" if config.model_type == "distilbert" else "intermediate_size"
    setattr(config, inner, getattr(config, inner) * hidden_size // before)
    config.hidden_size = hidden_size
    config.num_attention_heads = hidden_size // head


def keep_layers(config: Any, layers: Sequence[int]) -> None:
    """Give a configuration some of its layers, with their entries in the lists that have one for each layer.

    Args:
        config: changed in place.
        layers: the layers (0-based).
    """
    before = config.num_hidden_layers
    config.num_hidden_layers = len(layers)
    for name in _PER_LAYER:
        entries = getattr(config, name, None)
        if isinstance(entries, list | tuple) and len(entries) == before:
            setattr(config, name, [entries[layer] for layer in layers])


def check_weights(path: str, config: Any, flag: str, head: bool) -> None:
    """Refuse a folder whose weights do not fill a sequence classifier of this configuration.

    transformers would initialise missing weights at random. Its own loader says which those are. Weights beyond the
    needed ones are not checked, and neither is a hub id.

    Args:
        path: a folder, or a hub id.
        config: its configuration.
        flag: the flag or setting that errors name.
        head: whether the classification head is needed, too.

    Raises:
        InputError: weights are missing, or have other shapes.
    """
    if not Path(path).is_dir():
        return
    try:
        loaded = loader.try_weights(Path(path), config)
    except Exception as error:  # transformers raises many kinds for sizes that fit no model
        raise InputError(f"{flag}: {path} cannot be loaded: {_reason(error)}") from error
    problems = loader.missing_weights(loaded, path, flag, head)
    if problems:
        raise InputError(problems)


def _read(path: str, flag: str) -> Any:
    try:
        return loader.load_config(path)
    except Exception as error:  # transformers raises many kinds for a malformed config.json
        if Path(path).is_dir():
            raise InputError(f"{flag}: {Path(path) / 'config.json'} cannot be used: {_reason(error)}") from error
        if not isinstance(error, OSError | ValueError):
            raise
        reason = hub.unreachable("model", path) or _reason(error)
        raise InputError(f"{flag}: {path} is no folder, and cannot be loaded from the hub ({reason}).") from error


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
