"""Run a classifier on the real tokens of a batch alone: padding is there for the attention, and nowhere else.

Embeddings, linear layers, normalisation and dropout see the tokens of all examples in one row [1, T, H] in the place of
[B, n, H]. Results are those of the padded batch up to rounding, but for dropout, which draws as many random numbers
as there are real tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsd_tune.models.inputs import attends, inputs_for, takes_four_dimensions

# Families whose models pass further arguments on to the attention, take positions from outside, and know where a token
# stands from nothing else. The number is the first position after `config.pad_token_id`, None if positions begin at 0.
_FAMILIES = {"bert": None, "distilbert": None, "electra": None, "camembert": 1, "roberta": 1, "xlm-roberta": 1}
# With little padding, little can be saved, and moving tokens into place and back has a cost of its own.
_LEAST_PADDING = 0.15
_ATTENTION = "fsd_tune_packed"


def classify(model: Any, batch: Mapping[str, Tensor], hidden_states: bool = False, packed: bool = True) -> Any:
    """Return a classifier's outputs for a batch, computed without its padding where that is faster.

    That is on a CPU, where the time of a step grows with the positions, for batches with enough padding and models of
    BERT's family. On a GPU the launches of kernels limit the speed, and moving tokens takes more of them.

    Args:
        model: a transformers classifier.
        batch: as `collate` returns it, without labels.
        hidden_states: also return the hidden states.
        packed: False to compute padded positions too, because they are used.

    Returns:
        The model's outputs. Hidden states have the padded form [B, n, H], with zeros at padded positions that were
        not computed.
    """
    mask = batch["attention_mask"]
    if packed and mask.device.type == "cpu" and can_pack(model):
        # NumPy reads the mask. On a GPU, where this would make the host wait, nothing is packed.
        real = np.flatnonzero(mask.numpy())
        if len(real) <= (1 - _LEAST_PADDING) * mask.numel():
            with _packed(model, batch, _Packing(torch.from_numpy(real), mask)):
                return model(**inputs_for(model, batch), output_hidden_states=hidden_states)
    return model(**inputs_for(model, batch), output_hidden_states=hidden_states)


def can_pack(model: Any) -> bool:
    """Return whether a classifier can run on real tokens alone.

    Args:
        model: a transformers classifier.
    """
    config = model.config
    return (
        config.model_type in _FAMILIES
        and config._attn_implementation == "sdpa"
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and takes_four_dimensions(model)
    )


class _Packing:
    """The places of a batch's real tokens among its B * n positions."""

    def __init__(self, real: Tensor, mask: Tensor) -> None:
        self.real = real
        self.shape = tuple(mask.shape)
        self.mask = attends(mask)

    def take(self, padded: Tensor) -> Tensor:
        """Return the real tokens [T, ...] of a padded tensor [B, n, ...]."""
        taken: Tensor = _Take.apply(padded.flatten(0, 1), self.real)  # type: ignore[no-untyped-call]
        return taken

    def pad(self, tokens: Tensor) -> Tensor:
        """Return a padded tensor [B, n, ...] of real tokens [T, ...], zero elsewhere."""
        padded: Tensor = _Pad.apply(tokens, self.real, self.shape[0] * self.shape[1])  # type: ignore[no-untyped-call]
        return padded.view(*self.shape, *tokens.shape[1:])


class _Take(torch.autograd.Function):
    """Rows of a tensor. The gradient is copied into place, where torch's own would be added up row by row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.index, ctx.count = index, len(rows)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _placed(gradients[0], ctx.index, ctx.count), None


class _Pad(torch.autograd.Function):
    """The inverse of `_Take`, with zeros for the other rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, count: int) -> Tensor:
        ctx.index = index
        return _placed(rows, index, count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].index_select(0, ctx.index), None, None


def _placed(rows: Tensor, index: Tensor, count: int) -> Tensor:
    return rows.new_zeros(count, *rows.shape[1:]).index_copy_(0, index, rows)


class _PaddedStates(Sequence[Tensor]):
    """Hidden states that are padded when they are read, because a loss reads few of them."""

    def __init__(self, states: Sequence[Tensor], packing: _Packing) -> None:
        self._states = states
        self._packing = packing
        self._padded: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[position] for position in range(*index.indices(len(self))))
        position = range(len(self))[index]
        if position not in self._padded:
            self._padded[position] = self._packing.pad(self._states[position][0])
        return self._padded[position]


@contextmanager
def _packed(model: Any, batch: Mapping[str, Tensor], packing: _Packing) -> Iterator[None]:
    """Make the encoder below a classifier run on real tokens, and return padded outputs to the classifier's head."""
    config, encoder = model.config, model.base_model
    _register()

    def give_tokens(module: Any, arguments: Any, named: Any) -> Any:
        given = {name: value for name, value in named.items() if name in batch and name != "attention_mask"}
        given |= {"input_ids": batch["input_ids"]}
        tokens = {name: value.flatten()[packing.real][None] for name, value in given.items() if value is not None}
        positions = (packing.real % packing.shape[1])[None]
        first = _FAMILIES[config.model_type]
        tokens["position_ids"] = positions if first is None else positions + config.pad_token_id + first
        return (), named | tokens | {"attention_mask": packing.mask, "packing": packing}

    def pad_outputs(module: Any, arguments: Any, named: Any, outputs: Any) -> Any:
        outputs.last_hidden_state = packing.pad(outputs.last_hidden_state[0])
        if getattr(outputs, "pooler_output", None) is not None:
            outputs.pooler_output = module.pooler(outputs.last_hidden_state)
        if outputs.hidden_states is not None:
            outputs.hidden_states = _PaddedStates(outputs.hidden_states, packing)
        return outputs

    hooks = [
        encoder.register_forward_pre_hook(give_tokens, with_kwargs=True),
        encoder.register_forward_hook(pad_outputs, with_kwargs=True),
    ]
    kept, config._attn_implementation = config._attn_implementation, _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = kept
        for hook in hooks:
            hook.remove()


@cache
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, _attention)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    packing: _Packing | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return the attention of packed tokens, computed on padded ones.

    Args:
        module: the attention layer.
        query: [1, h, T, d], as `key` and `value`.
        key: see `query`.
        value: see `query`.
        attention_mask: True at the real tokens of each example, bool [B, 1, 1, n].
        dropout: probability.
        scaling: factor of the scores.
        packing: where the tokens stand in the batch.
        **_: what else transformers hands to an attention.

    Returns:
        [1, T, h, d], and no weights.
    """
    assert packing is not None
    tokens = torch.cat([part.transpose(1, 2) for part in (query, key, value)], 2)[0]
    queries, keys, values = packing.pad(tokens).transpose(1, 2).chunk(3, 1)
    mixed = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return packing.take(mixed.transpose(1, 2))[None], None
