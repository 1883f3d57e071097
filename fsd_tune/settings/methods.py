"""The distillation methods by name and the hyperparameters that each uses (method.md's table).

Nothing here imports torch: the command line validates a search space with it within a second. The formulas
are in `losses.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter: its type, its accepted range (ends included) and its default.

    `low_open` says that `low` itself is not accepted.
    """

    kind: type
    low: float
    high: float
    default: float
    doc: str
    low_open: bool = False


_LOSS = {
    "alpha": Hyperparameter(float, 0.0, 1.0, 0.5, "weight of the task loss; 1 - alpha weighs the soft targets"),
    "temperature": Hyperparameter(float, 0.0, 1000.0, 5.0, "softening of the soft targets", low_open=True),
    "beta": Hyperparameter(float, 0.0, 1e6, 30.0, "weight of the terms beside L_KD; each method has its own default"),
    "gamma_i": Hyperparameter(float, 0.0, 1e6, 1.0, "weight of the intra-feature term L_I inside beta"),
    "gamma_l": Hyperparameter(float, 0.0, 1e6, 1.0, "weight of the local inter-feature term L_L inside beta"),
    "gamma_g": Hyperparameter(float, 0.0, 1e6, 1.0, "weight of the global inter-feature term L_G inside beta"),
    "gamma_m": Hyperparameter(float, 0.0, 1.0, 0.5, "share of the distances in L_G; 1 - gamma_m for the cosines"),
}

OPTIMISATION = {
    "learning_rate": Hyperparameter(float, 0.0, 1.0, 5e-5, "peak of the linear schedule", low_open=True),
    "epochs": Hyperparameter(int, 1, 1000, 3, "passes over the training split"),
    "batch_size": Hyperparameter(int, 1, 65536, 32, "examples of a step"),
    "warmup_ratio": Hyperparameter(float, 0.0, 1.0, 0.0, "share of the steps that warm up"),
    "weight_decay": Hyperparameter(float, 0.0, 10.0, 0.0, "AdamW's, not on biases and LayerNorm"),
    "gradient_accumulation": Hyperparameter(
        int, 1, 4096, 1, "batches whose gradients are averaged into one optimiser step"
    ),
}

HYPERPARAMETERS = _LOSS | OPTIMISATION

METHODS: dict[str, tuple[str, ...]] = {
    "ce": (),
    "kd": ("alpha", "temperature"),
    "fsd_i": ("alpha", "temperature", "beta"),
    "fsd_l": ("alpha", "temperature", "beta"),
    "fsd_g": ("alpha", "temperature", "beta", "gamma_m"),
    "fsd_il": ("alpha", "temperature", "beta", "gamma_i", "gamma_l"),
    "fsd_ilg": ("alpha", "temperature", "beta", "gamma_i", "gamma_l", "gamma_g", "gamma_m"),
    "pkd": ("alpha", "temperature", "beta"),
    "rkd_distance": ("alpha", "temperature", "beta"),
    "rkd_angle": ("alpha", "temperature", "beta"),
}

USES_FEATURES = frozenset(METHODS) - {"ce", "kd"}
# Vectors of teacher and student are compared number by number, so both must be of one width.
NEEDS_EQUAL_WIDTHS = frozenset({"pkd"})
USES_MEMORY = frozenset({"fsd_g", "fsd_ilg"})
USES_TEACHER = frozenset(METHODS) - {"ce"}


# beta where it is not the paper's 30. fsd_il and fsd_ilg: ours. pkd: of the 10, 100, 500, 1000 that Sun et al. (2019)
# try. RKD: what Park et al. (2019) take beside a cross-entropy.
_BETA = {"fsd_il": 1.0, "fsd_ilg": 1.0, "pkd": 100.0, "rkd_distance": 25.0, "rkd_angle": 50.0}


def default(method: str, name: str) -> float | int:
    """The default of hyperparameter `name` for `method`: a published one, or ours for fsd_il and fsd_ilg."""
    if name == "beta" and method in _BETA:
        return _BETA[method]
    hyperparameter = HYPERPARAMETERS[name]
    return hyperparameter.kind(hyperparameter.default)  # type: ignore[no-any-return]
