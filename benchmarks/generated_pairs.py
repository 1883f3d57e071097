"""Pairs of sentences as long as RTE's, for machines without it."""

from pathlib import Path

import numpy as np

# Of RTE's 2,490 training pairs: the tokens of the first text are near a log-normal distribution with this median and
# spread, those of the second have this mean. The words below are one token each.
_MEDIAN, _SPREAD, _SECOND = 42, 0.65, 11
_DEV = 277
_WORDS = (
    "the a of in to and for on with that by from at was is has said will people state president company new year "
    "city world police minister court bank children health water school party war film book team market law"
)


def write(folder: Path, examples: int) -> None:
    """Write `RTE/train.tsv` and `RTE/dev.tsv`, the same for each call.

    Args:
        folder: where `RTE/` is made.
        examples: training pairs.
    """
    random, words = np.random.default_rng(0), _WORDS.split()
    target = folder / "RTE"
    target.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", examples), ("dev", _DEV)):
        lines = ["index\tsentence1\tsentence2\tlabel"]
        for row in range(rows):
            counts = round(_MEDIAN * np.exp(_SPREAD * random.standard_normal())), random.poisson(_SECOND)
            texts = (" ".join(random.choice(words, max(4, int(count)))) for count in counts)
            lines.append("\t".join([str(row), *texts, ("entailment", "not_entailment")[row % 2]]))
        (target / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
