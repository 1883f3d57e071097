"""Slow float64 references in plain NumPy loops, written from method.md alone, sharing no code with the package."""

import math

import numpy as np


def centre(gram):
    n = len(gram)
    h = np.eye(n) - np.full((n, n), 1 / n)
    return h @ gram @ h


def cka(x, y):
    """CKA of [n, p] and [n, q] by the matrices of the definition; None where undefined."""
    k, m = centre(x @ x.T), centre(y @ y.T)
    norm = np.linalg.norm(k) * np.linalg.norm(m)
    if len(x) < 2 or norm < 1e-20:
        return None
    return float((k * m).sum() / norm)


def loss_of(values):
    values = [abs(value) for value in values if value is not None]
    return -math.log(sum(values) / len(values) + 1e-8) if values else 0.0


def intra(teacher, student, mask):
    return loss_of([cka(t[m], s[m]) for t, s, m in zip(teacher, student, mask, strict=True)])


def local(teacher, student, mask):
    def flat(x):
        return np.stack([(row * m[:, None]).reshape(-1) for row, m in zip(x, mask, strict=True)])

    return loss_of([cka(flat(teacher), flat(student))])


def distances(feature, memory):
    return np.array([[math.sqrt(sum((f - m) ** 2)) for m in memory] for f in feature])


def cosines(feature, memory):
    return np.array([[f @ m / (math.sqrt(f @ f) * math.sqrt(m @ m)) for m in memory] for f in feature])


def global_(teacher, student, teacher_memory, student_memory, gamma_m, distance):
    d_t, d_s = distances(teacher, teacher_memory), distances(student, student_memory)
    if distance == "relative":
        d_t, d_s = d_t / d_t.mean(), d_s / d_s.mean()
    c_t, c_s = cosines(teacher, teacher_memory), cosines(student, student_memory)
    return (
        loss_of([cka(student_memory, teacher_memory)])
        + gamma_m * ((d_s - d_t) ** 2).mean()
        + (1 - gamma_m) * ((c_s - c_t) ** 2).mean()
    )


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def kd(teacher, student, temperature):
    total = 0.0
    for t, s in zip(teacher, student, strict=True):
        p, q = softmax(t / temperature), softmax(s / temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(teacher) * temperature**2


def cross_entropy(logits, labels):
    return sum(-math.log(softmax(z)[y]) for z, y in zip(logits, labels, strict=True)) / len(labels)
