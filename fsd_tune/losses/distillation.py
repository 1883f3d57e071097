"""The task loss and the soft targets of knowledge distillation (L_KD).

Formulas: docs/explanation/method.md, "Loss terms". Shapes: B examples, C classes. Inputs in half precision are
computed in float32.
"""

import torch.nn.functional as F
from torch import Tensor

from fsd_tune.cka import widen


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy with the labels, or the MSE for regression.

    Args:
        logits: [B, C]; C = 1 means regression.
        labels: int64 [B], or float [B] for regression.

    Returns:
        A scalar.
    """
    logits = widen(logits)
    if logits.shape[-1] == 1:
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def kd_loss(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over classes, averaged over the batch.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531. For regression (C = 1) it is
    the MSE between the logits and the temperature has no effect, because a softmax over one logit is constant.

    Args:
        teacher_logits: [B, C], any floating dtype.
        student_logits: [B, C], any floating dtype.
        temperature: T, above 0.

    Returns:
        A scalar, float32 (float64 if the student's logits are).

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[2.0, 0.0]])
        >>> round(kd_loss(teacher, torch.tensor([[0.0, 0.0]]), temperature=2.0).item(), 4)
        0.4438
        >>> kd_loss(teacher, teacher, temperature=2.0).item()
        0.0
    """
    teacher, student = widen(teacher_logits), widen(student_logits)
    if student.shape[-1] == 1:
        return F.mse_loss(student, teacher)
    soft = F.kl_div(
        F.log_softmax(student / temperature, -1),
        F.log_softmax(teacher / temperature, -1),
        reduction="sum",
        log_target=True,
    )
    return soft * (temperature**2 / len(student))
