"""Check that a student's pretrained model has the same token ids as its teacher's tokenizer.

The loss terms compare features of the same tokens (docs/explanation/method.md, "Loss terms"), so a student uses its
teacher's tokenizer. Pretrained word embeddings then fit only if both tokenizers give each token the same id.
"""

from typing import Any

from fsd_tune.data.splits import Split
from fsd_tune.errors import InputError
from fsd_tune.models.loading import ModelInfo, load_tokenizer
from fsd_tune.models.local_checks import model_problems
from fsd_tune.models.model_config import read_config
from fsd_tune.models.student_init import init_source, source_flag
from fsd_tune.settings.schema import Student

_EXAMPLES = 500
_SPECIAL = ("pad", "unk", "cls", "sep")
_ADVICE = (
    "give a --student-model that was pretrained with the teacher's tokenizer, or --student-start teacher or random"
)


def check_tokens(student: Student, teacher: ModelInfo, tokenizer: Any, split: Split, max_length: int) -> list[str]:
    """Return the problems of the tokenizer of the model that students start from.

    Args:
        student: the settings.
        teacher: describes the teacher.
        tokenizer: the teacher's tokenizer.
        split: the training split; both tokenizers must give its first 500 examples the same token ids.
        max_length: tokens of an example.

    Returns:
        A line for each problem, empty if there is none.
    """
    source = init_source(student, teacher)
    flag = source_flag(student, teacher)
    if source is None or source == teacher.path or student.start == "random":
        return []
    try:
        vocabulary = read_config(source, flag, tokenizer=False).vocab_size
    except InputError:  # `check_source` reports it
        return []
    problems = model_problems(source, flag)
    if problems:
        return problems
    try:
        model_tokenizer = load_tokenizer(source)
    except Exception as error:  # tokenizers raises bare Exceptions for a damaged file
        return [f"{flag}: the tokenizer in {source} cannot be loaded: {str(error).splitlines()[0]}"]
    difference = _difference(tokenizer, model_tokenizer, split, max_length)
    if difference:
        return [f"{flag}: {source} does not have the tokens of the teacher's tokenizer: {difference}; {_ADVICE}."]
    tokens = max(tokenizer.get_vocab().values()) + 1
    if vocabulary < tokens:
        return [f"{flag}: {source} has a vocabulary of {vocabulary}, but the teacher's tokenizer has {tokens} tokens."]
    return []


def _difference(teacher: Any, model: Any, split: Split, max_length: int) -> str:
    """Describe how two tokenizers differ; empty if they agree. The model's may have additional tokens."""
    teacher_ids = teacher.get_vocab()
    model_ids = model.get_vocab()
    moved = sorted((number, token) for token, number in teacher_ids.items() if model_ids.get(token) != number)
    if moved:
        number, token = moved[0]
        counterpart = f"has id {model_ids[token]} in the model's" if token in model_ids else "is missing in the model's"
        return (
            f"{len(moved)} of its {len(teacher_ids)} tokens have another id, such as {token!r}, which has id {number} "
            f"in the teacher's tokenizer and {counterpart}"
        )
    for name in _SPECIAL:
        special, counterpart = (getattr(tokenizer, f"{name}_token") for tokenizer in (teacher, model))
        if special != counterpart:
            return f"the {name} token is {special!r} in the teacher's tokenizer and {counterpart!r} in the model's"
    rows = zip(_ids(teacher, split, max_length), _ids(model, split, max_length), strict=True)
    for row, (expected, actual) in enumerate(rows, start=1):
        if expected != actual:
            pairs = enumerate(zip(expected, actual, strict=False))
            index = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(actual)))
            return (
                f"example {row} of {split.source} is tokenised differently, {_token(teacher, expected, index)} by the "
                f"teacher's tokenizer and {_token(model, actual, index)} by the model's"
            )
    return ""


def _token(tokenizer: Any, ids: list[int], index: int) -> str:
    return repr(tokenizer.convert_ids_to_tokens(ids[index])) if index < len(ids) else "nothing"


def _ids(tokenizer: Any, split: Split, max_length: int) -> list[list[int]]:
    second = None if split.second is None else list(split.second[:_EXAMPLES])
    encoded = tokenizer(list(split.first[:_EXAMPLES]), second, truncation=True, max_length=max_length)
    ids: list[list[int]] = encoded["input_ids"]
    return ids
