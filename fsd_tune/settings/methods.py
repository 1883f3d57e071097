"""The table of distillation methods: their loss terms, formulas, hyperparameters and the teacher data that they use.

A new method is an entry of `METHODS` (and of `TERMS` for a new loss term), a function of `fsd_tune.losses` that the
term names, and a file in `search_spaces/`. All other code that depends on the method reads these tables.

This module does not import torch, so that the command line validates a search space within a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter: its type, accepted range and default.

    Attributes:
        kind: `int` or `float`.
        low: the lowest accepted value.
        high: the highest accepted value.
        default: the default; a method may have its own for `beta`.
        doc: a short description, also shown by `--help`.
        low_open: whether `low` itself is excluded.
    """

    kind: type
    low: float
    high: float
    default: float
    doc: str
    low_open: bool = False


@dataclass(frozen=True)
class Term:
    """One term of the training loss.

    Attributes:
        label: the name in charts.
        loss: the function of `fsd_tune.losses` that computes the term for one layer pair, called with the hidden
            states of teacher and student and the attention mask; empty for terms that are not a mean over layer pairs.
        hyperparameters: the hyperparameters that the term takes in addition to its weight.
        uses: the teacher data that it needs: "logits", "features" (hidden states) or "memory" (centroids).
        equal_widths: whether the hidden sizes of teacher and student must be equal.
        cubic: whether its memory grows with the cube of the batch size.
        stacked: whether `loss` also takes the hidden states of several layer pairs in one tensor each, and returns the
            mean over them.
        cka: for terms of the form -log(CKA), the column of their loss and the column of the CKA in reports.
    """

    label: str
    loss: str = ""
    hyperparameters: tuple[str, ...] = ()
    uses: frozenset[str] = frozenset()
    equal_widths: bool = False
    cubic: bool = False
    stacked: bool = False
    cka: tuple[str, str] | None = None


@dataclass(frozen=True)
class Method:
    """One distillation method.

    Attributes:
        label: the name in charts and model cards.
        formula: the total loss in plain text.
        terms: the terms in addition to those of `kd`, each with the hyperparameters whose product is its weight.
        beta: the method's own default of `beta`; None for that of `HYPERPARAMETERS`.
        uses_teacher: whether the loss has the terms of `kd`: the task loss weighted by alpha and the soft targets
            weighted by 1 - alpha. If false, the loss is the task loss alone.
    """

    label: str
    formula: str
    terms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    beta: float | None = None
    uses_teacher: bool = True

    @property
    def all_terms(self) -> tuple[str, ...]:
        """The names of all terms of the loss."""
        return ("task", "kd", *self.terms) if self.uses_teacher else ("task",)

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """The method's own hyperparameters, in the order of `HYPERPARAMETERS`."""
        used = {name for term in self.all_terms for name in TERMS[term].hyperparameters}
        used |= {name for factors in self.terms.values() for name in factors}
        return tuple(name for name in HYPERPARAMETERS if name in used or (name == "alpha" and self.uses_teacher))

    def uses(self, data: str) -> bool:
        """Return whether any term needs this data of the teacher.

        Args:
            data: "logits", "features" or "memory".
        """
        return any(data in TERMS[term].uses for term in self.all_terms)


_LOSS = {
    "alpha": Hyperparameter(float, 0.0, 1.0, 0.5, "weight of the task loss; 1 - alpha weighs the soft targets"),
    "temperature": Hyperparameter(float, 0.0, 1000.0, 5.0, "temperature of the soft targets", low_open=True),
    "beta": Hyperparameter(float, 0.0, 1e6, 30.0, "weight of the terms beside L_KD; its default depends on the method"),
    "gamma_i": Hyperparameter(float, 0.0, 1e6, 1.0, "weight of the intra term (between tokens) inside beta"),
    "gamma_l": Hyperparameter(float, 0.0, 1e6, 1.0, "weight of the local term (between examples) inside beta"),
    "gamma_g": Hyperparameter(float, 0.0, 1e6, 1.0, "weight of the global inter-feature term L_G inside beta"),
    "gamma_m": Hyperparameter(float, 0.0, 1.0, 0.5, "weight of the distances in L_G; 1 - gamma_m weighs the cosines"),
    "beta_distance": Hyperparameter(float, 0.0, 1e6, 25.0, "weight of the distances between examples in rkd"),
    "beta_angle": Hyperparameter(float, 0.0, 1e6, 50.0, "weight of the angles between examples in rkd"),
}

OPTIMISATION = {
    "learning_rate": Hyperparameter(float, 0.0, 1.0, 5e-5, "peak of the linear schedule", low_open=True),
    "epochs": Hyperparameter(int, 1, 1000, 3, "passes over the training split"),
    "batch_size": Hyperparameter(int, 1, 65536, 32, "examples per batch"),
    "warmup_ratio": Hyperparameter(float, 0.0, 1.0, 0.0, "share of the steps used for warm-up"),
    "weight_decay": Hyperparameter(float, 0.0, 10.0, 0.0, "weight decay of AdamW, except on biases and LayerNorm"),
    "gradient_accumulation": Hyperparameter(
        int, 1, 4096, 1, "batches whose gradients are averaged for one optimiser step"
    ),
}

HYPERPARAMETERS = _LOSS | OPTIMISATION

_FEATURES = frozenset({"features"})
# In the order of reports and charts. The formulas are in `fsd_tune.losses`.
TERMS: dict[str, Term] = {
    "task": Term("task"),
    "kd": Term("KD", hyperparameters=("temperature",), uses=frozenset({"logits"})),
    "intra": Term("L_I (intra)", loss="intra_loss", uses=_FEATURES, stacked=True, cka=("loss/intra", "cka/intra")),
    "local": Term("L_L (local)", loss="local_loss", uses=_FEATURES, stacked=True, cka=("loss/local", "cka/local")),
    "global": Term(
        "L_G (global)",
        hyperparameters=("gamma_m",),
        uses=frozenset({"features", "memory"}),
        cka=("loss/global/memory", "cka/global"),
    ),
    "cls": Term("PKD ([CLS])", loss="cls_loss", uses=_FEATURES, equal_widths=True),
    "distance": Term("RKD distance", loss="rkd_distance_loss", uses=_FEATURES),
    "angle": Term("RKD angle", loss="rkd_angle_loss", uses=_FEATURES, cubic=True),
    "gram_intra": Term("Gram (intra)", loss="gram_intra_loss", uses=_FEATURES, stacked=True),
    "gram_local": Term("Gram (local)", loss="gram_local_loss", uses=_FEATURES, stacked=True),
    "procrustes_intra": Term("Procrustes (intra)", loss="procrustes_intra_loss", uses=_FEATURES, stacked=True),
    "procrustes_local": Term("Procrustes (local)", loss="procrustes_local_loss", uses=_FEATURES, stacked=True),
}

# A beta of 30 is the argparse default of the scripts of Jung et al. (2023). Their paper searched 3 to 6 for fsd_i and
# fsd_l. The 1 of fsd_il, fsd_ilg, gram and procrustes is this project's own. The 100 of pkd is one of the values 10,
# 100, 500 and 1000 that Sun et al. (2019) try. The values of RKD are those that Park et al. (2019) use with a
# cross-entropy.
METHODS: dict[str, Method] = {
    "ce": Method("fine-tuning", "the task loss alone (plain fine-tuning)", uses_teacher=False),
    "kd": Method("KD", "L_KD = alpha · task + (1 − alpha) · T² · KL(teacher ‖ student)"),
    "fsd_i": Method("FSD-I", "L_KD + beta · L_I", {"intra": ("beta",)}),
    "fsd_l": Method("FSD-L", "L_KD + beta · L_L", {"local": ("beta",)}),
    "fsd_g": Method("FSD-G", "L_KD + beta · L_G", {"global": ("beta",)}),
    "fsd_il": Method(
        "FSD-IL",
        "L_KD + beta · (gamma_i · L_I + gamma_l · L_L)",
        {"intra": ("beta", "gamma_i"), "local": ("beta", "gamma_l")},
        beta=1.0,
    ),
    "fsd_ilg": Method(
        "FSD-ILG",
        "L_KD + beta · (gamma_i · L_I + gamma_l · L_L + gamma_g · L_G)",
        {"intra": ("beta", "gamma_i"), "local": ("beta", "gamma_l"), "global": ("beta", "gamma_g")},
        beta=1.0,
    ),
    "pkd": Method(
        "PKD", "L_KD + beta · the squared distance of the normalised [CLS] vectors", {"cls": ("beta",)}, beta=100.0
    ),
    "rkd_distance": Method(
        "RKD-D",
        "L_KD + beta · the Huber loss of the examples' relative distances",
        {"distance": ("beta",)},
        beta=25.0,
    ),
    "rkd_angle": Method(
        "RKD-A", "L_KD + beta · the Huber loss of the angles between three examples", {"angle": ("beta",)}, beta=50.0
    ),
    "rkd": Method(
        "RKD",
        "L_KD + beta_distance · the Huber loss of the examples' relative distances"
        " + beta_angle · the Huber loss of the angles between three examples",
        {"distance": ("beta_distance",), "angle": ("beta_angle",)},
    ),
    "gram": Method(
        "Gram",
        "L_KD + beta · (gamma_i · the distance of the tokens' Gram matrices + gamma_l · that of the examples')",
        {"gram_intra": ("beta", "gamma_i"), "gram_local": ("beta", "gamma_l")},
        beta=1.0,
    ),
    "procrustes": Method(
        "Procrustes",
        "L_KD + beta · (gamma_i · the Procrustes distance of the tokens + gamma_l · that of the examples)",
        {"procrustes_intra": ("beta", "gamma_i"), "procrustes_local": ("beta", "gamma_l")},
        beta=1.0,
    ),
}

USES_TEACHER = frozenset(name for name, method in METHODS.items() if method.uses_teacher)
USES_FEATURES = frozenset(name for name, method in METHODS.items() if method.uses("features"))
USES_MEMORY = frozenset(name for name, method in METHODS.items() if method.uses("memory"))
NEEDS_EQUAL_WIDTHS = frozenset(
    name for name, method in METHODS.items() if any(TERMS[term].equal_widths for term in method.terms)
)


CUBIC_IN_BATCH = frozenset(name for name, method in METHODS.items() if any(TERMS[term].cubic for term in method.terms))


def default(method: str, name: str) -> float | int:
    """Return the default of a hyperparameter.

    Args:
        method: the name of a method.
        name: the name of a hyperparameter.

    Returns:
        The method's own default of `beta` if it has one, else the hyperparameter's default.
    """
    hyperparameter = HYPERPARAMETERS[name]
    method_default = METHODS[method].beta if name == "beta" else None
    return hyperparameter.kind(hyperparameter.default if method_default is None else method_default)  # type: ignore[no-any-return]


def term_weights(method: str, config: Mapping[str, float]) -> dict[str, float]:
    """Return the weight of each term in the total loss of `method`.

    Args:
        method: the name of a method.
        config: the values of its hyperparameters.

    Returns:
        {name of the term: weight}, in the order of `Method.all_terms`.
    """
    if not METHODS[method].uses_teacher:
        return {"task": 1.0}
    weights = {"task": config["alpha"], "kd": 1 - config["alpha"]}
    for term, factors in METHODS[method].terms.items():
        weights[term] = 1.0
        for name in factors:
            weights[term] *= config[name]
    return weights
