"""Choose which layers of teacher and student are paired, and which layers a student starts from."""

from collections.abc import Sequence

Pair = tuple[int, int]


def layer_pairs(layers: str | Sequence[Sequence[int]], teacher_layers: int, student_layers: int) -> tuple[Pair, ...]:
    """Return the pairs (t, s) of `hidden_states` indices that the loss terms compare; index 0 is the embedding output.

    See docs/explanation/method.md, "Layer pairs".

    Args:
        layers: the setting `loss.layers`: penultimate, last, all, or a list of pairs.
        teacher_layers: number of the teacher's layers.
        student_layers: number of the student's layers.

    Raises:
        ValueError: a listed pair lies beyond a model's last layer.
    """
    if not isinstance(layers, str):
        for t, s in layers:
            if not (0 <= t <= teacher_layers and 0 <= s <= student_layers):
                raise ValueError(
                    f"found the pair [{t}, {s}], but the teacher has layers 0..{teacher_layers} and the student "
                    f"0..{student_layers}"
                )
        return tuple((int(t), int(s)) for t, s in layers)
    if layers == "last" or student_layers == 1:
        return ((teacher_layers, student_layers),)
    if layers == "all":
        return tuple((round(s * teacher_layers / student_layers), s) for s in range(1, student_layers))
    assert layers == "penultimate", layers
    return ((teacher_layers - 1, student_layers - 1),)


def global_pair(layers: str | Sequence[Sequence[int]], teacher_layers: int, student_layers: int) -> Pair:
    """Return the pair whose features the memories summarise: the penultimate one, or the last with `layers: last`.

    The teacher memory holds centroids of one layer's features (docs/explanation/method.md, "Teacher memory"). `all`
    and listed pairs shape the other terms only, so they need no memory of their own.

    Args:
        layers: the setting `loss.layers`.
        teacher_layers: number of the teacher's layers.
        student_layers: number of the student's layers.
    """
    setting = "last" if layers == "last" else "penultimate"
    return layer_pairs(setting, teacher_layers, student_layers)[0]


def start_layers(start: str, source_layers: int, student_layers: int) -> tuple[int, ...]:
    """Return which layers (0-based) of the source model a student starts from.

    Args:
        start: `copy` takes the first layers, `every_other` spreads them from the first, `last` takes the last ones,
            `teacher` those that the student's layers are paired with (2, 4, 6 of six for three, counted from 1).
        source_layers: number of the source model's layers.
        student_layers: number of the student's layers, at most `source_layers`.
    """
    assert student_layers <= source_layers, (student_layers, source_layers)
    if start == "copy":
        return tuple(range(student_layers))
    if start == "last":
        return tuple(range(source_layers - student_layers, source_layers))
    if start == "every_other":
        return tuple(i * source_layers // student_layers for i in range(student_layers))
    assert start == "teacher", start
    return tuple(round((i + 1) * source_layers / student_layers) - 1 for i in range(student_layers))
