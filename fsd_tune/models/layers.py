"""Which layers of teacher and student are paired, and from which layers a student starts. Plain arithmetic."""

from collections.abc import Sequence

Pair = tuple[int, int]


def layer_pairs(layers: str | Sequence[Sequence[int]], teacher_layers: int, student_layers: int) -> tuple[Pair, ...]:
    """The pairs (t, s) of `hidden_states` indices (method.md, "Symbols"); index 0 is the embedding output.

    Args:
        layers: the setting `loss.layers`: penultimate, last, all, or a list of pairs.
        teacher_layers, student_layers: Lt and Ls.

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
    """The pair whose flattened features the memories stand for: the penultimate one, or the last with `layers: last`.

    The memory is the teacher's penultimate features' (method.md, "L_G"), so that `all` and listed pairs, which shape
    the other terms, do not need a memory each.
    """
    which = "last" if layers == "last" else "penultimate"
    return layer_pairs(which, teacher_layers, student_layers)[0]


def start_layers(start: str, source_layers: int, student_layers: int) -> tuple[int, ...]:
    """Which layers (0-based) of the source model a student starts from.

    `copy` takes the first ones, `every_other` spreads from the first, `last` takes the last ones, `teacher` those
    that the student's layers are matched with (2, 4, 6 of six for three, counted from 1).
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
