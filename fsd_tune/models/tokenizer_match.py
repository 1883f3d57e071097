"""Whether a student's pretrained model reads the tokens that its teacher's tokenizer makes.

Structures compare the same tokens (method.md, "The terms"), so that a student has its teacher's tokenizer, and a word
embedding that was learnt must be the one of the token that bears its number.
"""

from typing import Any

from fsd_tune.data.splits import Split
from fsd_tune.errors import InputError
from fsd_tune.models.loading import ModelInfo, load_tokenizer
from fsd_tune.models.local_checks import model_problems
from fsd_tune.models.model_config import read_config
from fsd_tune.models.student_init import init_source, source_place
from fsd_tune.settings.schema import Student

_EXAMPLES = 500
_SPECIAL = ("pad", "unk", "cls", "sep")
_ADVICE = (
    "give a --student-model that was pretrained with the teacher's tokenizer, or --student-start teacher or random"
)


def check_tokens(student: Student, teacher: ModelInfo, tokenizer: Any, split: Split, max_length: int) -> list[str]:
    """Problems of the tokens of the model that students start from; empty when they are the teacher's.

    Args:
        student: the settings.
        teacher: describes the teacher.
        tokenizer: the teacher's.
        split: of training; the first 500 examples must have the same token ids by both.
        max_length: tokens of an example.
    """
    source, place = init_source(student, teacher), source_place(student, teacher)
    if source is None or source == teacher.path or student.start == "random":
        return []
    try:
        vocabulary = read_config(source, place, tokenizer=False).vocab_size
    except InputError:  # `check_source` says so
        return []
    lacking = model_problems(source, place)
    if lacking:
        return lacking
    try:
        other = load_tokenizer(source)
    except Exception as error:  # tokenizers raises bare Exceptions for a damaged file
        return [f"{place}: the tokenizer in {source} cannot be loaded: {str(error).splitlines()[0]}"]
    what = _difference(tokenizer, other, split, max_length)
    if what:
        return [f"{place}: {source} does not read the tokens of the teacher's tokenizer: {what}; {_ADVICE}."]
    most = max(tokenizer.get_vocab().values()) + 1
    if vocabulary < most:
        return [f"{place}: {source} has a vocabulary of {vocabulary}, but the teacher's tokenizer has {most} tokens."]
    return []


def _difference(teacher: Any, other: Any, split: Split, max_length: int) -> str:
    """Where two tokenizers differ, in words; empty when they agree.

    The other one may have more tokens, which never occur.
    """
    own, others = teacher.get_vocab(), other.get_vocab()
    moved = sorted((number, token) for token, number in own.items() if others.get(token) != number)
    if moved:
        number, token = moved[0]
        there = f"{others[token]} there" if token in others else "missing there"
        return (
            f"{len(moved)} of its {len(own)} tokens have another number, such as {token!r}, {number} here and {there}"
        )
    for name in _SPECIAL:
        pair = [getattr(each, f"{name}_token") for each in (teacher, other)]
        if pair[0] != pair[1]:
            return f"the {name} token is {pair[0]!r} here and {pair[1]!r} there"
    ids = [_ids(each, split, max_length) for each in (teacher, other)]
    for row, (mine, theirs) in enumerate(zip(*ids, strict=True)):
        if mine != theirs:
            at = next(
                (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
            )
            words = [
                each.convert_ids_to_tokens(found[at : at + 1]) for each, found in ((teacher, mine), (other, theirs))
            ]
            said = [word[0] if word else "nothing" for word in words]
            return f"example {row + 1} of {split.source} is cut otherwise, {said[0]!r} here and {said[1]!r} there"
    return ""


def _ids(tokenizer: Any, split: Split, max_length: int) -> list[list[int]]:
    second = None if split.second is None else list(split.second[:_EXAMPLES])
    made = tokenizer(list(split.first[:_EXAMPLES]), second, truncation=True, max_length=max_length)
    ids: list[list[int]] = made["input_ids"]
    return ids
