"""Track searches in Weights & Biases: log runs, upload offline runs, download groups, and write sweeps."""
