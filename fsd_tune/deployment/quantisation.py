"""Quantise the weights of an ONNX classifier to int8 with ONNX Runtime, part by part."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fsd_tune.models.onnx import open_session, warnings_unlogged

# The module that a node was traced from, which torch's exporter records: ['', 'model', 'model.bert', ...].
_SCOPES = "pkg.torch.onnx.name_scopes"
_LAYER = re.compile(r"\.(\d+)(?=[.'])")
_WITH_WEIGHTS = {"MatMul": 1, "Gemm": 1, "Gather": 0}
EMBEDDINGS, HEAD = "embeddings", "head"

DYNAMIC, STATIC = "dynamic", "static"
KINDS = (DYNAMIC, STATIC)


def parts_of(path: Path) -> dict[str, list[str]]:
    """Return the nodes of an ONNX classifier that have weights, by part.

    Args:
        path: a file of `models.onnx.write_onnx`.

    Returns:
        The names of nodes by `embeddings`, `layer 0`, `layer 1` and so on, and `head`.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    parts: dict[str, list[str]] = {}
    for node in graph.node:
        place = _WITH_WEIGHTS.get(node.op_type)
        if place is not None and node.input[place] in weights:
            scopes = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES, "")
            parts.setdefault(_part(scopes, node.op_type), []).append(node.name)
    return parts


def quantise(
    source: Path, target: Path, kind: str, nodes: Collection[str], batches: Sequence[Mapping[str, torch.Tensor]]
) -> None:
    """Write a copy of an ONNX classifier with some of its weights in int8.

    Weights are scaled channel by channel and use 7 bits: with 8, processors without VNNI instructions overflow in
    their 16-bit sums, and the same file would give other scores on them.

    Args:
        source: the float file.
        target: the file to write.
        kind: dynamic (activations are scaled by the range of each batch) or static (by the range in `batches`).
        nodes: the names of the nodes to quantise.
        batches: inputs, int64 [B, n] by name, for the calibration of `static`.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    options = {
        "op_types_to_quantize": list(_WITH_WEIGHTS),
        "nodes_to_quantize": list(nodes),
        "per_channel": True,
        "reduce_range": True,
        "weight_type": QuantType.QInt8,
        "extra_options": {"MatMulConstBOnly": True},
    }
    with warnings_unlogged():
        if kind == DYNAMIC:
            quantize_dynamic(source, target, **options)
        else:
            quantize_static(
                source, target, _reader(source, batches), quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8, **options,
            )  # fmt: skip
    _keep_sums_apart(target)


def _keep_sums_apart(path: Path) -> None:
    """Write the sums before layer normalisations as `Sum`, which ONNX Runtime does not fuse with them.

    It fuses `Add`, and on a CPU its fused kernel (SkipLayerNormalization of 1.32) takes more than twice as long as the
    two: without it a student of three layers is 15% faster in int8. Float files keep `Add`, because GPUs profit.
    """
    import onnx

    model = onnx.load(str(path))
    weights = {weight.name for weight in model.graph.initializer}
    sums = {node.output[0]: node for node in model.graph.node if node.op_type == "Add"}
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and node.input[0] in sums:
            before = sums[node.input[0]]
            if not weights.intersection(before.input):
                before.op_type = "Sum"
    onnx.save(model, str(path))


def _part(scopes: str, op_type: str) -> str:
    layer = _LAYER.search(scopes)
    if layer is not None:
        return f"layer {layer[1]}"
    return EMBEDDINGS if op_type == "Gather" or "embedding" in scopes else HEAD


def _reader(source: Path, batches: Sequence[Mapping[str, torch.Tensor]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    names = [node.name for node in open_session(source).get_inputs()]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """A reader that gives the calibration its batches in their order."""

        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {name: batch[name].numpy() for name in names}

    return Reader()
