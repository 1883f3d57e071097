"""The sections of a settings file other than the space: every key with its type, accepted values, default and meaning.

`--help` and the reference of all settings print the descriptions.
"""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fsd_tune.settings.fields import Accepted, Number, Place, Reason, Section, Truth, Whole
from fsd_tune.settings.problems import as_number
from fsd_tune.settings.wandb_section import Wandb

_DURATION = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?")
_DURATIONS = "a duration such as 2h, 30m, 1h30m or 90s"
_LAYERS = "one of penultimate, last, all, or a list of [teacher layer, student layer] pairs such as [[11, 5]]"
_FIRST = "a list of configurations such as [{alpha: 0.5}]"
_WARM_FROM = "auto, off, or folders of earlier searches such as [runs/cola, runs/mrpc]"
_SELECT_ON = "dev or {holdout: share of the training split, above 0 and at most 0.5}"
_MAX_GPUS = 1024
MAX_SEED = 2**32 - 1  # NumPy accepts no larger seed.


def _read_layers(value: Any) -> Any:
    if isinstance(value, str) and value in ("penultimate", "last", "all"):
        return value
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"must be {_LAYERS}")
    pairs = []
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"must be {_LAYERS}")
        try:
            pairs.append(tuple(as_number(layer, int, 0, 1000) for layer in pair))
        except ValueError:
            raise ValueError(f"must be {_LAYERS}, each a whole number from 0 (the embeddings)") from None
    if len(set(pairs)) < len(pairs):
        raise ValueError("must be a list of different pairs")
    return tuple(pairs)


def _read_select_on(value: Any) -> Any:
    if value == "dev" or isinstance(value, Holdout):
        return value
    if not isinstance(value, Mapping) or set(value) != {"holdout"}:
        raise ValueError(f"must be {_SELECT_ON}")
    try:
        return Holdout(holdout=as_number(value["holdout"], float, 0, 0.5, low_open=True))
    except ValueError:
        raise ValueError(f"must be {_SELECT_ON}") from None


def _read_warm_from(value: Any) -> Any:
    if value in ("auto", "off"):
        return value
    # A flag can give several folders without brackets: --warm-from runs/cola,runs/mrpc
    folders = value.split(",") if isinstance(value, str) else value
    if not isinstance(folders, list | tuple) or not folders:
        raise ValueError(f"must be {_WARM_FROM}")
    if not all(isinstance(folder, str) and folder.strip() for folder in folders):
        raise ValueError(f"must be {_WARM_FROM}")
    paths = tuple(map(os.path.expanduser, map(str.strip, folders)))
    if len(set(paths)) < len(paths):
        raise ValueError("must be a list of different folders")
    return paths


def seconds(duration: str) -> int:
    """Return the seconds of a duration such as 2h, 30m, 1h30m or 90s.

    Args:
        duration: hours, minutes and seconds in this order; any of them can be left out.

    Raises:
        ValueError: the text is not a duration, or the duration is zero.
    """
    match = _DURATION.fullmatch(duration)
    hours, minutes, rest = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + rest
    if total == 0:
        raise ValueError(f"must be {_DURATIONS}")
    return total


def _read_duration(value: Any) -> Any:
    if value is not None:
        seconds(value if isinstance(value, str) else "")
    return value


def _read_gpus(value: Any) -> float | str:
    if value == "auto":
        return "auto"
    try:
        number: float = as_number(value, float, 0, _MAX_GPUS)
    except ValueError as error:
        raise ValueError(f"{error} or auto") from None
    if number > 1 and not number.is_integer():
        raise ValueError("must be a share of one GPU or a whole number of them")
    return number


class Student(Section):
    """The student and its initial weights."""

    model: Place | None = Field(
        default=None,
        description="pretrained model to start from, folder or hub id; null: the teacher's own pretrained base",
    )
    layers: Whole = Field(ge=1, le=1000, default=6, description="number of layers of the student")
    start: Literal["copy", "every_other", "last", "teacher", "random"] = Field(
        default="copy",
        description="initial weights: copy (the first layers of model), every_other or last (layers of model), "
        "teacher (the teacher's layers, pooler and head) or random",
    )
    hidden_size: Whole | None = Field(
        ge=1,
        le=65536,
        default=None,
        description="hidden size of the student, only with start: random; null: the teacher's",
    )
    memory_start: Literal["matched", "published"] = Field(
        default="matched",
        description="initial student memory: matched (mean of the student's features in each cluster of the "
        "teacher's) or published (standard normal)",
    )
    freeze_embeddings: Truth = Field(default=False, description="do not train the embeddings")


class Data(Section):
    """The examples and their conversion to tensors."""

    max_length: Whole = Field(ge=4, le=100_000, default=128, description="maximum number of tokens of an example")
    padding: Literal["masked", "published"] = Field(
        default="masked",
        description="whether the structure terms ignore padding (masked) or include it (published)",
    )
    batching: Literal["random", "grouped"] = Field(
        default="random",
        description="which examples meet in a batch: random ones, or ones grouped by length, which saves padding",
    )
    train_limit: Whole | None = Field(
        ge=1, le=10**9, default=None, description="train on the first N examples after a seeded shuffle; null: all"
    )


class Weights(Section):
    """The published weights of fsd_ilg: epsilon * (sigma * L_G + (1 - sigma)/2 * (gamma * L_I + (1 - gamma) * L_L)).

    `beta` takes the place of gamma_m (docs/explanation/method.md, "Loss terms").
    """

    epsilon: Number = Field(ge=0, le=1e6, description="weight of the three terms together")
    sigma: Annotated[Number, Reason("above 1, L_I and L_L would have a negative weight")] = Field(
        ge=0, le=1, description="share of L_G among the three terms"
    )
    gamma: Annotated[Number, Reason("above 1, L_L would have a negative weight")] = Field(
        ge=0, le=1, description="share of L_I among L_I and L_L"
    )
    beta: Number = Field(ge=0, le=1, description="weight of the distances in L_G (gamma_m)")

    def hyperparameters(self) -> dict[str, float]:
        """Return the hyperparameters that give the same loss; their beta is epsilon."""
        return {
            "beta": self.epsilon,
            "gamma_i": (1 - self.sigma) * self.gamma / 2,
            "gamma_l": (1 - self.sigma) * (1 - self.gamma) / 2,
            "gamma_g": self.sigma,
            "gamma_m": self.beta,
        }


class Loss(Section):
    """Layers, distances and weights of the structure terms."""

    layers: Annotated[
        Literal["penultimate", "last", "all"] | tuple[tuple[int, int], ...],
        BeforeValidator(_read_layers),
        Accepted(_LAYERS),
    ] = Field(default="penultimate", description="layer pairs: penultimate, last, all or [[teacher, student], ...]")
    distance: Literal["relative", "raw"] = Field(
        default="relative",
        description="distances to the centroids in L_G: relative (divided by their mean) or raw",
    )
    weights: Weights | None = Field(
        default=None,
        description="{epsilon, sigma, gamma, beta}: published weights of fsd_ilg, instead of beta and the gammas",
    )


class Optimizer(Section):
    """The steps of the optimiser: torch's, or those of the published code, one by one."""

    clipping: Literal["separate", "together"] = Field(
        default="separate",
        description="clip the gradients of student and student memory by a norm each, or together by one (published)",
    )
    epsilon: Literal["torch", "published"] = Field(
        default="torch",
        description="where AdamW adds epsilon: after the bias correction (torch) or before it (published)",
    )
    accumulation: Literal["averaged", "published"] = Field(
        default="averaged",
        description="gradient_accumulation: averaged, or published (added up for some methods; batches that an epoch "
        "has left over count for the next one)",
    )


class Memory(Section):
    """The teacher memory: centroids of the teacher's features."""

    centroids: Whole | None = Field(
        ge=2, le=10**6, default=None, description="number of centroids; null: 300 for mnli and qqp, 100 otherwise"
    )
    algorithm: Literal["kmeans", "published"] = Field(
        default="kmeans", description="clustering: kmeans, or published (as in the published code)"
    )
    spool_limit_gb: Number = Field(
        ge=0,
        le=10**6,
        default=50.0,
        description="maximum gigabytes of teacher outputs on disk; above it, the teacher runs during training",
    )


class Holdout(Section):
    """Selection on a share of the training split that is held out."""

    holdout: float


class Search(Section):
    """The search: its trials, its sampler and the scoring of trials."""

    trials: Whole = Field(ge=1, le=10**6, default=64, description="number of trials")
    seed: Whole = Field(
        ge=0,
        le=MAX_SEED,
        default=0,
        description="seed of the sampler, the batch order and the initialisation",
    )
    sampler: Literal["tpe", "random", "grid", "cmaes", "gp"] = Field(
        default="tpe",
        description="sampler of configurations: tpe, random, grid (all combinations of choices and stepped ranges), "
        "cmaes (tpe for choices and conditional parameters) or gp (Gaussian process)",
    )
    compare_methods: Literal["equal", "best_overall"] | None = Field(
        default=None,
        description="if method is a choice: equal (each method gets the same number of reports) or best_overall (the "
        "sampler spends freely); null: equal, but best_overall with a grid",
    )
    first: Annotated[tuple[dict[str, Any], ...], Accepted(_FIRST)] = Field(
        default=(), description="configurations to try first, after the defaults"
    )
    warm_from: Annotated[
        Literal["auto", "off"] | tuple[str, ...], BeforeValidator(_read_warm_from), Accepted(_WARM_FROM)
    ] = Field(
        default="auto",
        description="earlier searches whose best configurations are tried after those of first: folders, off, or auto "
        "(of a command with several tasks, the tasks before)",
    )
    select_on: Annotated[Literal["dev"] | Holdout, BeforeValidator(_read_select_on), Accepted(_SELECT_ON)] = Field(
        default="dev",
        description="examples that trials are judged on: dev, or {holdout: 0.1}, a share of the training split",
    )
    time_budget: Annotated[str | None, BeforeValidator(_read_duration), Accepted(_DURATIONS)] = Field(
        default=None,
        description="end the search after this time and train its best trial to its end: 2h, 30m, 1h30m, 90s; null: "
        "no limit",
    )

    stop_after_stalled: Whole | None = Field(
        ge=1,
        le=10**9,
        default=None,
        description="start no new trials after N trials without a better finished one; null: no limit",
    )
    stop_when: Literal["noise"] | None = Field(
        default=None,
        description="noise: start no new trials once a better configuration would gain less than the standard error of "
        "a score; null: go on",
    )
    price_per_hour: Number | None = Field(
        gt=0,
        le=10**6,
        default=None,
        description="price of an hour of all machines of the search, for the cost in its report; null: no cost",
    )

    @property
    def time_budget_seconds(self) -> int | None:
        """The time budget in seconds, or None."""
        return None if self.time_budget is None else seconds(self.time_budget)


class Asha(Section):
    """Early stopping of trials by ASHA; its resource is the number of evaluations."""

    reports: Whole = Field(
        ge=1, le=10_000, default=10, description="number of evaluations of a trial, at equal fractions of its steps"
    )
    grace: Whole = Field(ge=1, le=10_000, default=1, description="evaluations before a trial can be stopped")
    reduction_factor: Number = Field(
        gt=1, le=10_000, default=3.0, description="keep 1/reduction_factor of the trials at each rung"
    )


class Resources(Section):
    """The resources of one trial, and the placement of trials."""

    cpus_per_trial: Number = Field(gt=0, le=10_000, default=1.0, description="CPUs per trial")
    gpus_per_trial: Annotated[
        float | Literal["auto"],
        BeforeValidator(_read_gpus),
        Accepted(f"a share of one GPU, a whole number of GPUs up to {_MAX_GPUS}, or auto"),
    ] = Field(
        default="auto",
        description="GPUs per trial; below 1, trials share a GPU; auto: none on machines without GPUs, else a share",
    )
    max_concurrent: Whole | None = Field(
        ge=1,
        le=10**6,
        default=None,
        description="maximum number of trials at the same time; null: as many as the resources allow",
    )
    placement: Literal["pack", "spread"] = Field(
        default="pack", description="on a cluster: pack trials on as few nodes as possible, or spread them over all"
    )
    deterministic: Truth = Field(
        default=False,
        description="on a GPU: compute the same bits in every run, so that a resumed trial equals an uninterrupted one",
    )


Precision = Literal["auto", "float32", "bf16"]

SECTIONS: dict[str, type[Section]] = {
    "student": Student,
    "data": Data,
    "loss": Loss,
    "optimizer": Optimizer,
    "memory": Memory,
    "search": Search,
    "asha": Asha,
    "resources": Resources,
    "wandb": Wandb,
}
