"""The loss terms of feature structure distillation and of the methods that it is compared with.

Jung et al., "Feature structure distillation with Centered Kernel Alignment in BERT transferring", 2023,
arXiv 2204.08922; formulas in docs/explanation/method.md, "Loss terms". Losses receive tensors, never models.

Shapes: B examples, n tokens, H and H' hidden sizes of teacher and student, D and D' flattened feature widths,
K centroids, C classes. Inputs in half precision are computed in float32.
"""

from fsd_tune.losses.alignment import Comparison, alignment_losses
from fsd_tune.losses.baselines import cls_loss, pkd_loss, rkd_angle_loss, rkd_distance_loss
from fsd_tune.losses.distillation import kd_loss, task_loss
from fsd_tune.losses.geometry import gram_intra_loss, gram_local_loss, procrustes_intra_loss, procrustes_local_loss
from fsd_tune.losses.global_structure import (
    GlobalTargets,
    distances_and_cosines,
    global_loss,
    global_parts,
    global_sum,
    global_terms,
)
from fsd_tune.losses.structures import COMPARED, Features, flatten, intra_loss, local_loss

__all__ = [
    "COMPARED",
    "Comparison",
    "Features",
    "GlobalTargets",
    "alignment_losses",
    "cls_loss",
    "distances_and_cosines",
    "flatten",
    "global_loss",
    "global_parts",
    "global_sum",
    "global_terms",
    "gram_intra_loss",
    "gram_local_loss",
    "intra_loss",
    "kd_loss",
    "local_loss",
    "pkd_loss",
    "procrustes_intra_loss",
    "procrustes_local_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "task_loss",
]
