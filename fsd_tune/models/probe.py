"""Find out, by training a tiny model of its family, whether an encoder can be used at all, and in bf16."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from fsd_tune.device import autocast
from fsd_tune.errors import InputError
from fsd_tune.models.loader import load_config, new_model
from fsd_tune.models.model_config import SIZES, keep_layers

_TOKENS = 8


def check_encoder(path: str, config: Any, flag: str) -> None:
    """Refuse decoders, whose tokens do not attend to later ones, sizes below 1, and families that cannot be trained.

    Args:
        path: a folder, or a hub id.
        config: its configuration.
        flag: the flag or setting that errors name.

    Raises:
        InputError: it is one of those.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    words, classes = MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if config.model_type not in {*words} & {*classes} or getattr(config, "is_decoder", False):
        raise InputError(f"{flag}: {path} is a {config.model_type} decoder, but must be an encoder, such as a BERT.")
    wrong = [f"{name} {getattr(config, name)}" for name in SIZES if getattr(config, name) < 1]
    if wrong:
        raise InputError(f"{flag}: {Path(path) / 'config.json'} cannot be used: it has {', '.join(wrong)}.")
    reason = probe(config)
    if reason:
        raise InputError(f"{flag}: {path} is a {config.model_type} that cannot be used: {reason}.")


def probe(config: Any, precision: str = "float32") -> str:
    """Train a model of the family for one step, with at most two layers, few words and random weights.

    Args:
        config: a transformers configuration of an encoder.
        precision: float32 or bf16.

    Returns:
        Why it cannot be trained; empty if it can.
    """
    small = copy.deepcopy(config)
    try:
        keep_layers(small, range(min(2, config.num_hidden_layers)))
        small.vocab_size = min(config.vocab_size, max(config.pad_token_id or 0, 2 * _TOKENS) + 1)
        ids = torch.arange(2 * _TOKENS).view(2, _TOKENS) % small.vocab_size
        mask = torch.ones_like(ids)
        mask[1, _TOKENS // 2 :] = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = new_model(small).train()
            with autocast(precision, torch.device("cpu")):
                out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            out.logits.float().sum().backward()
    except Exception as error:  # families fail in as many ways as there are
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    if len(out.hidden_states) != small.num_hidden_layers + 1:
        return f"{small.num_hidden_layers} layers give {len(out.hidden_states)} hidden states"
    wrong = [list(layer.shape) for layer in out.hidden_states if layer.shape != (*ids.shape, config.hidden_size)]
    if wrong:
        return f"a hidden state has the shape {wrong[0]} instead of {[*ids.shape, config.hidden_size]}"
    return "" if out.logits.isfinite().all() else "the logits are not finite"


def usable_precision(precision: str, paths: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Return the precision that all models can be trained in.

    Args:
        precision: bf16 or float32.
        paths: folders or hub ids.

    Returns:
        `precision`, or float32 with a note about the model that cannot be trained in bf16.
    """
    if precision != "bf16":
        return precision, ()
    for path in dict.fromkeys(paths):
        config = load_config(path)
        if reason := probe(config, precision):
            return "float32", (f"{path} cannot be trained in bf16 ({config.model_type}: {reason}); float32 is used.",)
    return precision, ()
