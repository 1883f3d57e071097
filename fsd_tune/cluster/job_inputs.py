"""What of a command line goes along to a cluster, and what it is called there."""

import contextlib
import itertools
import json
import posixpath
from collections.abc import Sequence
from pathlib import Path

from fsd_tune.data import task_file
from fsd_tune.errors import InputError
from fsd_tune.settings.shipped import find_space
from fsd_tune.storage import artifacts
from fsd_tune.storage.artifacts import digest
from fsd_tune.storage.uri import is_uri, problems_of

# Verbs whose argument is a file that is sent; that of the others is a search's folder there.
_BY_FILE = ("search", "memory", "distill", "doctor")
_SWITCHES = ("--overwrite", "--quiet", "--verbose", "--json", "--debug", "--errored")
_PATHS = ("", "--teacher", "--data", "--model", "--student-model", "--configuration", "--baseline")


def translated(shared: str, words: Sequence[str]) -> tuple[list[str], dict[str, Path]]:
    """A command as it is typed there, and what is sent for it, by where it goes."""
    verb, rest, option, argument = words[0], list(words[1:]), "", ""
    remote, problems = [verb], list[str]()
    sent: dict[str, Path] = {}
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    for wrong in sorted(given & {"--help", "--detach", "--address", "--shared"}):
        problems.append(
            f"{wrong}: is not for the verb that is submitted; options of submit come before its cluster file."
        )
    for word in rest:
        if word.startswith("--"):
            name, joined, value = word.partition("=")
            if not joined:
                remote.append(word)
                option = "" if name in _SWITCHES else name
                continue
        else:
            name, joined, value = option, "", word
            if not option:
                argument = word
        option = ""
        if name in ("--output", "--memory") or (not name and verb not in _BY_FILE):
            value = there(shared, value, name or verb)
        elif name == "--task-file":
            try:
                value = _sent_task(shared, value, "--data" in given, sent)
            except InputError as error:
                problems += error.problems
        elif name in _PATHS:
            # An argument can name a shipped space.
            value = _sent(shared, value if name else str(find_space(value)), sent)
            if not name and value == word:
                problems.append(f"{word}: no such file.")
        remote.append(f"{name}={value}" if joined else value)
    if not argument and verb not in ("doctor", "distill", "teacher"):
        problems.append(f"{verb}: lacks {'its YAML' if verb in _BY_FILE else 'a folder'}.")
    if problems:
        raise InputError([f"submit: {problem}" for problem in problems])
    if verb in ("search", "distill", "memory") and "--student-model" not in given:
        remote += _base_of_teacher(shared, rest, sent)
    if verb in ("search", "resume", "confirm", "doctor"):
        remote += ["--address", "auto"]
    return remote, sent


def _sent(shared: str, value: str, sent: dict[str, Path]) -> str:
    """Where a file or folder from here lies there; a value that names none, such as a hub id, as it is."""
    # `teachers/{task}`: the folder that holds them all goes along.
    whole, place, after = value.partition("{task}")
    path = Path(whole).expanduser()
    if place and not whole.endswith("/"):
        path, place = path.parent, path.name + place
    if not value or not path.exists():
        return value
    here = path.resolve()
    target = f"{shared}/inputs/{digest(str(here))[:6]}-{here.name}"
    sent[target] = path
    return f"{target}/{place}{after}" if place else target


def _sent_task(shared: str, value: str, with_data: bool, sent: dict[str, Path]) -> str:
    """Where the YAML of a task of one's own lies there; without `--data` the files that it names go along.

    Raises:
        InputError: it cannot be read, or names files that lie elsewhere or are missing.
    """
    tables = task_file.read(Path(value).expanduser()).tables
    assert tables is not None
    target = f"{shared}/inputs/{digest(str(tables.file.resolve()))[:6]}-{tables.file.stem}"
    sent[f"{target}/{tables.file.name}"] = tables.file
    problems = []
    for split, file in tables.files:
        path, parts = tables.file.parent / file, Path(file).parts
        if Path(file).is_absolute() or {"..", "~"} & set(parts):
            below = "--data" if with_data else "the YAML's own folder"
            problems.append(f"{value}: files.{split}: found {file}, but for a cluster must lie below {below}.")
        elif not with_data and not path.is_file():
            problems.append(f"{value}: files.{split}: {path}: no such file.")
        elif not with_data:
            sent[f"{target}/{file}"] = path
    if problems:
        raise InputError(problems)
    return f"{target}/{tables.file.name}"


def _base_of_teacher(shared: str, rest: Sequence[str], sent: dict[str, Path]) -> list[str]:
    """The pretrained model that students start from, where the teacher's folder names a folder of this machine."""
    pairs = [*itertools.pairwise(rest), *(word.split("=", 1) for word in rest if "=" in word)]
    teacher = next((value for name, value in pairs if name == "--teacher"), "")
    with contextlib.suppress(OSError, ValueError):
        base = json.loads((Path(teacher).expanduser() / artifacts.MODEL_RECORD).read_text(encoding="utf-8")).get("base")
        if base and Path(base).is_dir():
            return ["--student-model", _sent(shared, base, sent)]
    return []


def there(shared: str, output: str, place: str) -> str:
    """A search's folder in the shared one, or its URI.

    Raises:
        InputError: it would lie outside, or no storage has such a URI.
    """
    if is_uri(output):
        if problems := problems_of(output, place):
            raise InputError(problems)
        return output
    path = posixpath.normpath(posixpath.join(shared, output))
    if not path.startswith(f"{shared}/"):
        raise InputError(f"{place}: {output} does not lie in {shared}, which all nodes share.")
    return path
