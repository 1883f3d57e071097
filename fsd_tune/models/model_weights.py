"""Whether a model's folder holds what its configuration promises, as the headers of its files show."""

from pathlib import Path
from typing import Any

import torch

from fsd_tune.errors import InputError


def check_encoder(path: str, config: Any, place: str) -> None:
    """Refuse decoders, whose tokens do not see what follows them, and sizes that nothing can have.

    Raises:
        InputError: it is one.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or getattr(config, "is_decoder", False):
        raise InputError(f"{place}: {path} is a {config.model_type} decoder, but must be an encoder, such as a BERT.")
    sizes = ("num_hidden_layers", "hidden_size", "num_attention_heads")
    wrong = [f"{name} {getattr(config, name)}" for name in sizes if getattr(config, name) < 1]
    if wrong:
        raise InputError(f"{place}: {Path(path) / 'config.json'} cannot be used: it has {', '.join(wrong)}.")


def check_classifier(path: str, config: Any, place: str) -> None:
    """Refuse a folder whose weights are not those of a sequence classifier of this configuration.

    transformers would make up what is missing. Nothing is looked at of a hub id, nor of what is more than needed.

    Raises:
        InputError: weights are missing, or have other shapes.
    """
    if not Path(path).is_dir():
        return
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    # As they are called on disk: older checkpoints have TensorFlow's names for the normalisations.
    held = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): shape
        for file in Path(path).glob("*.safetensors")
        for name, shape in _shapes(file).items()
    }
    wanted = {name: list(value.shape) for name, value in model.state_dict().items()}
    # A pretrained model by itself is saved without the name of that part.
    part = f"{model.base_model_prefix}."
    held |= {part + name: shape for name, shape in held.items() if part + name in wanted}
    missing = [name for name in wanted if name not in held]
    head = [name for name in missing if not name.startswith(part)]
    if head:
        raise InputError(
            f"{place}: {path} has no classification head ({head[0]} is missing), but must be fine-tuned; "
            "`fsd-tune teacher` does that."
        )
    if missing:
        raise InputError(
            f"{place}: {path} lacks {len(missing)} of the weights that its config.json needs: {missing[0]}."
        )
    other = [name for name, shape in wanted.items() if shape != held[name]]
    if other:
        name = other[0]
        raise InputError(
            f"{place}: {path} has {len(other)} weights of another shape than its config.json says: {name} is "
            f"{held[name]}, must be {wanted[name]}."
        )


def _shapes(file: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    with safe_open(file, framework="np") as weights:
        return {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 (no mapping)
