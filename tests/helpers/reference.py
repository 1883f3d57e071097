"""Slow float64 references in plain NumPy loops, written from method.md alone, sharing no code with the package."""

import math

import numpy as np
import scipy.linalg


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


def cosine(a, b):
    return a @ b / (math.sqrt(a @ a) * math.sqrt(b @ b)) if a.any() and b.any() else 0.0


def cosines(feature, memory):
    return np.array([[cosine(f, m) for m in memory] for f in feature])


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


def pkd(teacher, student):
    """Sun et al. 2019: MSE of unit [CLS] vectors, mean over examples and dimensions."""
    total, count = 0.0, 0
    for t, s in zip(teacher, student, strict=True):
        t, s = t[0] / math.sqrt(sum(t[0] ** 2)), s[0] / math.sqrt(sum(s[0] ** 2))
        for a, b in zip(t, s, strict=True):
            total, count = total + (a - b) ** 2, count + 1
    return total / count


def huber(a, b):
    gap = abs(a - b)
    return 0.5 * gap**2 if gap <= 1 else gap - 0.5


def rkd_distance(teacher, student):
    """Park et al. 2019 on [B, D]: mean over pairs of different examples; 0 where one side has no distances."""
    b = len(teacher)
    pairs = [(i, j) for i in range(b) for j in range(b) if i != j]
    sides = []
    for x in (teacher, student):
        found = {(i, j): math.sqrt(sum((x[i] - x[j]) ** 2)) for i, j in pairs}
        mean = sum(found.values()) / len(pairs) if pairs else 0.0
        if mean == 0:
            return 0.0
        sides.append({pair: value / mean for pair, value in found.items()})
    return sum(huber(sides[0][pair], sides[1][pair]) for pair in pairs) / len(pairs)


def rkd_angle(teacher, student):
    """Park et al. 2019 on [B, D]: mean over triplets of different examples whose angle at j exists on both sides."""
    b, found = len(teacher), []
    for i in range(b):
        for j in range(b):
            for k in range(b):
                if i != j and j != k and i != k:
                    cosines = []
                    for x in (teacher, student):
                        to_i, to_k = x[i] - x[j], x[k] - x[j]
                        norm = math.sqrt(to_i @ to_i) * math.sqrt(to_k @ to_k)
                        cosines.append(None if norm == 0 else to_i @ to_k / norm)
                    if None not in cosines:
                        found.append(huber(*cosines))
    return sum(found) / len(found) if found else 0.0


def published_memory(points, draws):
    """The published procedure on [N, D], step by step, given the K x D standard normal numbers of its start."""
    n = len(points)
    for step, point in enumerate(points):
        # Nothing is carried over from one step to the next: the last one decides.
        mean = sum(point) / len(point)
        variance = sum((value - mean) ** 2 for value in point) / (len(point) - 1)
        start = mean / (step + 1) + math.sqrt(variance / (step + 1)) * draws
    clusters = [int(np.argmin([sum((point - centre) ** 2) for centre in start])) for point in points]
    memory = np.zeros_like(draws)
    for step in range(n):
        memory[clusters[step]] = (memory[clusters[step]] + points[step]) / 2
    return memory, clusters


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


def shape(x):
    """The rows minus their mean, divided by their Frobenius norm; None if they are all equal."""
    x = x - sum(x) / len(x)
    norm = math.sqrt((x**2).sum())
    return x / norm if norm > 1e-10 else None


def gram_distance(x, y):
    """Bhattarai et al. 2025: the norm of the difference of all inner products; None where undefined."""
    x, y = shape(x), shape(y)
    if x is None or y is None:
        return None
    pairs = [(i, j) for i in range(len(x)) for j in range(len(x))]
    return math.sqrt(sum((x[i] @ x[j] - y[i] @ y[j]) ** 2 for i, j in pairs))


def procrustes_distance(x, y):
    """Bhattarai et al. 2025: what the best rotation of `y` leaves; None where undefined."""
    x, y = shape(x), shape(y)
    if x is None or y is None:
        return None
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in (x, y))
    turn, _ = scipy.linalg.orthogonal_procrustes(y, x)
    return ((y @ turn - x) ** 2).sum()


def mean_distance(distance, pairs):
    """The mean of the defined distances of pairs of matrices; 0 without any."""
    found = [value for x, y in pairs if (value := distance(x, y)) is not None]
    return sum(found) / len(found) if found else 0.0
