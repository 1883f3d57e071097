"""Read and check configurations and weight headers of any family of encoders, before any weight is read."""

from pathlib import Path
from typing import Any

import torch

from fsd_tune.errors import InputError
from fsd_tune.models.local_checks import model_problems
from fsd_tune.models.quiet import transformers_quiet
from fsd_tune.storage import hub

# These families count positions from the padding token's id on, so the positions up to that id are never used.
_COUNTED_FROM_PADDING = (
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip
_SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads")


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
    folder = Path(path)
    config = _folder_config(folder, flag) if folder.is_dir() else _hub_config(path, flag)
    # Families have other names of their own for these (DistilBERT's n_layers); transformers maps them.
    missing = [name for name in _SIZES if not isinstance(getattr(config, name, None), int)]
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


def check_encoder(path: str, config: Any, flag: str) -> None:
    """Refuse decoders, whose tokens do not attend to later ones, and sizes below 1.

    Args:
        path: a folder, or a hub id.
        config: its configuration.
        flag: the flag or setting that errors name.

    Raises:
        InputError: it is a decoder or has such a size.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or getattr(config, "is_decoder", False):
        raise InputError(f"{flag}: {path} is a {config.model_type} decoder, but must be an encoder, such as a BERT.")
    wrong = [f"{name} {getattr(config, name)}" for name in _SIZES if getattr(config, name) < 1]
    if wrong:
        raise InputError(f"{flag}: {Path(path) / 'config.json'} cannot be used: it has {', '.join(wrong)}.")


def check_classifier(path: str, config: Any, flag: str) -> None:
    """Refuse a folder whose weights are not those of a sequence classifier of this configuration.

    transformers would initialise missing weights at random. Weights beyond the needed ones are not checked, and
    neither is a hub id.

    Args:
        path: a folder, or a hub id.
        config: its configuration.
        flag: the flag or setting that errors name.

    Raises:
        InputError: weights are missing, or have other shapes.
    """
    if not Path(path).is_dir():
        return
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    # Older checkpoints have TensorFlow's names for the normalisations.
    stored = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): shape
        for file in Path(path).glob("*.safetensors")
        for name, shape in _shapes(file).items()
    }
    needed = {name: list(value.shape) for name, value in model.state_dict().items()}
    # A pretrained model by itself is saved without the prefix that it has inside a classifier.
    prefix = f"{model.base_model_prefix}."
    stored |= {prefix + name: shape for name, shape in stored.items() if prefix + name in needed}
    missing = [name for name in needed if name not in stored]
    head = [name for name in missing if not name.startswith(prefix)]
    if head:
        raise InputError(
            f"{flag}: {path} has no classification head ({head[0]} is missing), but must be fine-tuned; "
            "`fsd-tune teacher` does that."
        )
    if missing:
        raise InputError(
            f"{flag}: {path} lacks {len(missing)} of the weights that its config.json needs: {missing[0]}."
        )
    mismatched = [name for name, shape in needed.items() if shape != stored[name]]
    if mismatched:
        name = mismatched[0]
        raise InputError(
            f"{flag}: {path} has {len(mismatched)} weights of another shape than its config.json says: {name} is "
            f"{stored[name]}, must be {needed[name]}."
        )


def _shapes(file: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    with safe_open(file, framework="np") as weights:
        return {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 (no mapping)


def _folder_config(folder: Path, flag: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder))
    except Exception as error:  # transformers raises many kinds for a malformed config.json
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{flag}: {folder / 'config.json'} cannot be used: {reason}") from error


def _hub_config(name: str, flag: str) -> Any:
    from transformers import AutoConfig

    try:
        with hub.cached_if_unreachable(name):
            return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = hub.unreachable("model", name) or str(error).splitlines()[0]
        raise InputError(f"{flag}: {name} is no folder, and cannot be loaded from the hub ({reason}).") from error
