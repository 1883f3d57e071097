"""The size and the speed of classifiers: parameters, bytes, FLOPs, and latency in several runtimes."""
