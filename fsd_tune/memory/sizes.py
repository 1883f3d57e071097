"""Bytes that teacher outputs and memory take on a disk, from numbers alone."""


def outputs_bytes(positions: int, examples: int, hidden_size: int, layers: int, classes: int) -> int:
    """Return the bytes of teacher outputs: float16 features, float32 logits, int64 offsets.

    Args:
        positions: stored tokens of all examples.
        examples: N.
        hidden_size: H.
        layers: number of stored layers.
        classes: C.
    """
    return 2 * positions * hidden_size * layers + 4 * examples * classes + 8 * (examples + 1)


def memory_bytes(examples: int, k: int, width: int) -> int:
    """Return the bytes of a teacher memory: float32 centroids, distances and cosines, int32 clusters.

    Args:
        examples: N.
        k: number of centroids K.
        width: D, the width of a flattened feature.
    """
    return 4 * (k * width + 2 * examples * k + examples)
