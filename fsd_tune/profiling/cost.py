"""The size of a classifier and the operations of one forward pass, from its configuration alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fsd_tune.models.inputs import inputs_for
from fsd_tune.models.loader import new_model
from fsd_tune.models.local_checks import weight_files
from fsd_tune.models.quiet import transformers_quiet

# Entries of a configuration that change neither the operations nor their sizes.
_NO_SHAPE = frozenset(
    {
        "_name_or_path", "architectures", "attention_probs_dropout_prob", "bos_token_id", "classifier_dropout", "dtype",
        "eos_token_id", "finetuning_task", "hidden_dropout_prob", "id2label", "initializer_range", "label2id",
        "layer_norm_eps", "problem_type", "transformers_version", "torch_dtype",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """The size of a classifier and the operations of one forward pass.

    Attributes:
        parameters: number of weights.
        size_mb: megabytes (10^6 bytes) of the weights: of the stored files, or in float32.
        flops: operations for one example by its number of tokens, with a multiplication and an addition as two; None
            for a family whose operations cannot be counted without computing them.
    """

    parameters: int
    size_mb: float
    flops: dict[int, int | None]


@transformers_quiet()
def cost_of(config: Any, lengths: tuple[int, ...], folder: Path | None = None) -> Cost:
    """Return the size of a classifier and its operations. No weight is read or made.

    Args:
        config: the transformers configuration of a sequence classifier.
        lengths: numbers of tokens of an example.
        folder: the folder of its weights; None for the size in float32.
    """
    with torch.device("meta"):
        model = new_model(config).eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    stored = sum(file.stat().st_size for file in weight_files(folder)) if folder is not None else 0
    size = (stored or 4 * parameters) / 1e6
    return Cost(parameters, size, {length: _count_flops(model, length) for length in lengths})


def shape_of(config: Any) -> dict[str, Any]:
    """Return the entries of a configuration that decide how fast its model computes.

    Args:
        config: a transformers configuration.

    Returns:
        The entries, with the number of labels; labels, dropout and the like are left out. Two models whose shapes are
        equal are equally fast.
    """
    entries: dict[str, Any] = config.to_dict()
    shape = {name: value for name, value in entries.items() if name not in _NO_SHAPE}
    return shape | {"num_labels": config.num_labels}


def _count_flops(model: Any, length: int) -> int | None:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        ids = torch.ones((1, length), dtype=torch.long)
        inputs = inputs_for(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model(**inputs)
    except RuntimeError as error:
        if "meta" not in str(error).lower():
            raise
        # The model's code reads values, which meta tensors do not have.
        return None
    return int(counter.get_total_flops())
