"""Track searches in Weights & Biases: log runs, upload offline ones, download groups, and write sweeps."""
