"""Reading a model's configuration, of any family of encoders, before any weight is read."""

from pathlib import Path
from typing import Any

from fsd_tune.errors import InputError
from fsd_tune.models.local_checks import model_problems
from fsd_tune.storage import hub

# Their positions are counted from the padding token's id on, so that as many of them are never used.
_COUNTED_FROM_PADDING = (
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


def read_config(path: str, place: str, tokenizer: bool = True) -> Any:
    """The configuration of a folder or hub id, an encoder whose layers `hidden_states` counts.

    Args:
        path: a folder, or a hub id.
        place: what an error names, usually the flag.
        tokenizer: whether a folder must hold one.

    Raises:
        InputError: no such folder, no configuration, no tokenizer, no weights, or no such encoder.
    """
    problems = model_problems(path, place, tokenizer)
    if problems:
        raise InputError(problems)
    folder = Path(path)
    config = _folder_config(folder, place) if folder.is_dir() else _hub_config(path, place)
    # Families have other names of their own for these (DistilBERT's n_layers); transformers maps them.
    sizes = ("num_hidden_layers", "hidden_size", "num_attention_heads")
    missing = [name for name in sizes if not isinstance(getattr(config, name, None), int)]
    if missing:
        raise InputError(f"{place}: {path} is no encoder: its config.json has no {', '.join(missing)}.")
    if config.is_encoder_decoder:
        raise InputError(f"{place}: {path} is a {config.model_type}, an encoder with a decoder; give an encoder.")
    if getattr(config, "inner_group_num", 1) != 1:
        raise InputError(
            f"{place}: {path} has {config.inner_group_num} layers in each group, but must have 1: its hidden states "
            "count them apart from num_hidden_layers."
        )
    return config


def positions_of(config: Any) -> int | None:
    """The longest input that a model takes; None where its positions have no end or are not said."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    # DeBERTa's distances are put into buckets: any length goes, unless positions are added to the words, too.
    if positions is None or not getattr(config, "position_biased_input", True):
        return None
    return positions - (config.pad_token_id + 1 if config.model_type in _COUNTED_FROM_PADDING else 0)


def narrow(config: Any, hidden_size: int) -> None:
    """Make a configuration's layers `hidden_size` wide, with heads as wide as before.

    Raises:
        InputError: it is no multiple of a head's width.
    """
    before = config.hidden_size
    head = before // config.num_attention_heads
    if hidden_size % head:
        raise InputError(f"student.hidden_size: found {hidden_size}, but must be a multiple of {head}, a head's width.")
    # What is as wide as the layers without being called so; embeddings of another width (ELECTRA) keep it.
    for name in ("embedding_size", "pooler_hidden_size"):
        if getattr(config, name, None) == before:
            setattr(config, name, hidden_size)
    inner = "hidden_dim" if config.model_type == "distilbert" else "intermediate_size"
    setattr(config, inner, getattr(config, inner) * hidden_size // before)
    config.hidden_size, config.num_attention_heads = hidden_size, hidden_size // head


def _folder_config(folder: Path, place: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder))
    except Exception as error:  # transformers raises many kinds for a malformed config.json
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{place}: {folder / 'config.json'} cannot be used: {reason}") from error


def _hub_config(name: str, place: str) -> Any:
    from transformers import AutoConfig

    unreachable = hub.unreachable("model", name)
    try:
        with hub.offline(bool(unreachable)):
            config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = unreachable or str(error).splitlines()[0]
        raise InputError(f"{place}: {name} is no folder, and cannot be loaded from the hub ({reason}).") from error
    if unreachable:
        # It is in the local cache: loading its weights, here and in workers, is not to wait for the hub again.
        hub.stay_offline()
    return config
