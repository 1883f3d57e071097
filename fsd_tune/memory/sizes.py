"""Bytes that teacher outputs and memory take on a disk (README, "What a trial costs"). Needs nothing but numbers."""


def outputs_bytes(positions: int, examples: int, hidden_size: int, layers: int, classes: int) -> int:
    """Float16 features at each stored position and layer, float32 logits, int64 offsets."""
    return 2 * positions * hidden_size * layers + 4 * examples * classes + 8 * (examples + 1)


def memory_bytes(examples: int, k: int, width: int) -> int:
    """Float32 centroids [K, D], every example's float32 distances and cosines to them, its int32 cluster."""
    return 4 * (k * width + 2 * examples * k + examples)
