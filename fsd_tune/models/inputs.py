"""What a model receives of a batch: the inputs that it accepts, and a mask for which the host need not wait."""

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Given a mask [B, n], transformers' mask code reads whether any token is padding, so that the host waits for the GPU
# in every forward pass. It hands a mask of four dimensions to the attention unread. These families take one, with the
# same results to the last bit (tests/unit/models/test_inputs.py). The others get the mask [B, n], because they read it
# in more places: DeBERTa and DeBERTa-v2, Longformer, EuroBERT and the like.
_FOUR_DIMENSIONS = frozenset(
    {
        "albert", "bert", "camembert", "data2vec-text", "distilbert", "electra", "ernie", "gte", "jina_embeddings_v3",
        "megatron-bert", "mobilebert", "mpnet", "nomic_bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert",
        "roformer", "xlm-roberta", "xlm-roberta-xl",
    }
)  # fmt: skip


def reads_types(model: Any) -> bool:
    """Return whether a classifier distinguishes token types.

    Args:
        model: a transformers classifier.

    Returns:
        False for DistilBERT, which has no token types, and for RoBERTa, which has only one.
    """
    parameters = inspect.signature(model.forward).parameters
    return "token_type_ids" in parameters and getattr(model.config, "type_vocab_size", 2) > 1


def inputs_for(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the keyword arguments of a model's forward pass.

    Inputs that `model` does not accept are dropped, such as `token_type_ids` for DistilBERT.

    Args:
        model: a transformers classifier.
        batch: as `collate` returns it, without labels.

    Returns:
        The remaining inputs. The attention mask has four dimensions if the model takes such a mask.
    """
    accepts_types = reads_types(model)
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if accepts_types or name != "token_type_ids"}
    return inputs | {"attention_mask": _attention_mask(model, batch["attention_mask"])}


def takes_four_dimensions(model: Any) -> bool:
    """Return whether all layers of a classifier take a mask [B, 1, 1, n].

    Args:
        model: a transformers classifier.
    """
    return model.config.model_type in _FOUR_DIMENSIONS and _passes_masks_on(model)


def attends(mask: Tensor) -> Tensor:
    """Return a mask of four dimensions for sdpa.

    Args:
        mask: nonzero at real tokens, [B, n].

    Returns:
        bool [B, 1, 1, n].
    """
    return mask.bool()[:, None, None, :]


def _passes_masks_on(model: Any) -> bool:
    # Early releases of transformers 5 made the masks of some families elsewhere, which refuses four dimensions.
    family_code = sys.modules[type(model).__module__]
    return hasattr(family_code, "create_bidirectional_mask") and model.config._attn_implementation in ("sdpa", "eager")


def _attention_mask(model: Any, mask: Tensor) -> Tensor | dict[str, Tensor]:
    """Return the mask in the form that the host need not wait for, or as it is.

    Args:
        model: a transformers classifier.
        mask: nonzero at real tokens, [B, n].

    Returns:
        [B, 1, 1, n]; for ModernBERT such a mask, or one [B, 1, n, n], by the kind of layer; else `mask`.
    """
    config = model.config
    if takes_four_dimensions(model):
        return _for_attention(config, attends(mask))
    # Mean pooling in ModernBERT reads the mask [B, n].
    if config.model_type == "modernbert" and config.classifier_pooling == "cls" and _passes_masks_on(model):
        positions = torch.arange(mask.shape[1], device=mask.device)
        near = (positions[:, None] - positions).abs() <= config.sliding_window
        return {
            "full_attention": _for_attention(config, attends(mask)),
            "sliding_attention": _for_attention(config, attends(mask) & near),
        }
    return mask


def _for_attention(config: Any, attended: Tensor) -> Tensor:
    """Return a boolean mask as it is for sdpa, and as numbers to add to the scores for eager attention."""
    if config._attn_implementation == "sdpa":
        return attended
    return torch.where(attended, 0.0, torch.finfo(torch.float32).min)
