"""The flags that override a settings file: `--student-layers 3`, `--trials=20`, `--alpha '{low: 0.1, high: 0.9}'`."""

from collections.abc import Iterable, Sequence

from fsd_tune.errors import InputError, nearest
from fsd_tune.settings.methods import HYPERPARAMETERS
from fsd_tune.settings.schema import SECTIONS


def flags() -> list[tuple[str, str, str]]:
    """Every flag as (flag, dotted key, one line of documentation), in the order of the settings file.

    The keys of the sections `search` and `resources` have a short flag (`--trials`) before the full one
    (`--search-trials`), and so has the mode of `wandb` (`--wandb`).
    """
    rows = [("--method", "method", "method of the paper, or {choice: [..]} of several")]
    rows += [(_flag(name), f"space.{name}", h.doc) for name, h in HYPERPARAMETERS.items()]
    for section, model in SECTIONS.items():
        if section == "asha":
            rows.append(("--asha", "asha", "on or off: early stopping"))
        for key, field in model.model_fields.items():
            doc = field.description or ""
            if section in ("search", "resources"):
                rows.append((_flag(key), f"{section}.{key}", doc))
            if (section, key) == ("wandb", "mode"):
                rows.append(("--wandb", "wandb.mode", doc))
            rows.append((_flag(f"{section}-{key}"), f"{section}.{key}", doc))
    rows.append(("--precision", "precision", "auto (bf16 where it runs natively), float32 or bf16"))
    return rows


def flag_of(dotted_key: str) -> str:
    """The shortest flag of a dotted key; the key itself when it has none."""
    return min((flag for flag, key, _ in flags() if key == dotted_key), key=len, default=dotted_key)


def parse_flags(arguments: Sequence[str]) -> dict[str, str]:
    """`--flag value` and `--flag=value` pairs as {dotted key: value text}, for `settings.load`.

    Underscores serve as hyphens. An InputError holds every unknown flag, missing value and repetition.
    """
    keys = {flag: key for flag, key, _ in flags()}
    values: dict[str, str] = {}
    problems = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("--"):
            problems.append(f"{argument}: unexpected argument, must be a flag such as --trials 20.")
            continue
        typed, equals, value = argument.partition("=")
        if not equals and remaining and not remaining[0].startswith("--"):
            value, equals = remaining.pop(0), "="
        flag = typed.replace("_", "-")
        if flag not in keys:
            problems.append(f"{typed}: {unknown_flag(flag, keys)}")
        elif not equals:
            problems.append(f"{typed}: needs a value.")
        elif keys[flag] in values:
            problems.append(f"{typed}: is given twice.")
        else:
            values[keys[flag]] = value
    if problems:
        raise InputError(problems)
    return values


def unknown_flag(flag: str, known: Iterable[str]) -> str:
    """What is said of a flag that is not among the `known`."""
    if flag == "--gamma":
        return "unknown flag: there are `--gamma-m`, `--gamma-i`, `--gamma-l` and `--gamma-g`."
    return f"unknown flag.{nearest(flag, known)}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
