"""Choose the training examples from which static quantisation learns the ranges of activations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_tune.data import holdout
from fsd_tune.data.batching import TokenizedSplit, split_digest, tokenize
from fsd_tune.data.splits import Split
from fsd_tune.memory import teacher_memory
from fsd_tune.models.folder import made_in_search
from fsd_tune.report.results import Results
from fsd_tune.report.results import load as load_results
from fsd_tune.storage import artifacts, layout

EXAMPLES = 128


@dataclass(frozen=True)
class Calibration:
    """Training examples for the calibration.

    Attributes:
        examples: the tokenised examples.
        source: how they were chosen, such as `the 128 most central examples of the teacher memory`.
    """

    examples: TokenizedSplit
    source: str


def choose_calibration(student: str, train: Split, tokenizer: Any, max_length: int) -> Calibration:
    """Return the most central examples of the memory of the student's search; random ones without a memory.

    An example is central if it is near the centroid of its cluster. Each cluster gives its nearest example before any
    gives its second, so that few examples stand for the whole training split.

    Args:
        student: the student's folder or hub id.
        train: the task's training split.
        tokenizer: the student's tokenizer.
        max_length: largest number of tokens of an example.
    """
    search = made_in_search(Path(student))
    if search is not None:
        found = _from_memory(load_results(search), train, tokenizer)
        if found is not None:
            return Calibration(found, f"the {len(found)} most central examples of the teacher memory")
    tokens = tokenize(train, tokenizer, max_length, limit=EXAMPLES)
    return Calibration(tokens, f"{len(tokens)} random training examples, because the student has no teacher memory")


def central_rows(clusters: NDArray[np.int32], distances: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the examples that are nearest to the centroids of their clusters, every cluster's nearest first.

    Args:
        clusters: int32 [N], the cluster of each example.
        distances: float32 [N, K], the distance of each example to each centroid.
        count: number of examples.

    Returns:
        int64 [min(N, count)], rows.
    """
    own = distances[np.arange(len(clusters)), clusters]
    order = np.lexsort((own, clusters))  # By cluster, then by distance.
    sorted_clusters = clusters[order]
    starts = np.searchsorted(sorted_clusters, sorted_clusters)  # Where the cluster of each begins.
    place = np.arange(len(order)) - starts
    return order[np.lexsort((own[order], place))][:count].astype(np.int64)


def _from_memory(results: Results, train: Split, tokenizer: Any) -> TokenizedSplit | None:
    """Return the most central examples of a search; None if its memory or its training split is not this one."""
    summary, data = results.summary, results.settings.get("data", {})
    path = Path(summary.memory.path or "none")
    folder = next((place for place in (path, results.folder / layout.MEMORY / path.name) if place.is_dir()), None)
    is_memory = folder is not None and path.name.startswith("memory-") and artifacts.facts_of(folder) is not None
    if folder is None or not is_memory or "max_length" not in data:
        return None
    rows = train if summary.held_out is None else holdout.split_holdout(train, summary.held_out)[0]
    tokens = tokenize(rows, tokenizer, int(data["max_length"]), data.get("train_limit"))
    memory = teacher_memory.read_memory(folder, mapped=True)
    # A memory of a live teacher stands for a sample.
    if split_digest(tokens) != summary.identity.get("training split") or len(memory.clusters) != len(tokens):
        return None
    return tokens.take(central_rows(memory.clusters, memory.distances, EXAMPLES))
