"""Translate a command line for a cluster, and find the files that the command needs there."""

import itertools
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from fsd_tune.data import task_file
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.settings.shipped import find_space
from fsd_tune.storage.artifacts import digest
from fsd_tune.storage.model_record import ModelRecord
from fsd_tune.storage.uri import is_uri, local_path, problems_of

# Verbs whose argument is a file to send. The argument of other verbs is an experiment folder on the cluster.
_BY_FILE = ("search", "memory", "distill", "doctor")
_SWITCHES = ("--overwrite", "--quiet", "--verbose", "--json", "--debug", "--errored")
_PATHS = ("", "--teacher", "--data", "--model", "--student-model", "--configuration", "--baseline")


def translate(shared: str, words: Sequence[str]) -> tuple[list[str], dict[str, Path]]:
    """Translate a command for the cluster.

    Args:
        shared: the folder that all nodes share.
        words: the verb and its arguments, as the user typed them on this machine.

    Returns:
        The words of the command on the cluster, and the files and folders to send, by their path on the cluster.

    Raises:
        InputError: arguments are wrong; it has a line for each problem.
    """
    verb, arguments = words[0], [_with_hyphens(word) for word in words[1:]]
    inputs, problems = _Inputs(shared), ProblemCollector()
    option_names = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    for name in sorted(option_names & {"--help", "--detach", "--address", "--shared"}):
        problems.add(f"{name}: is not for the verb that is submitted; options of submit come before its cluster file.")
    translated = [verb]
    option = ""
    argument = ""
    for word in arguments:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            if not equals:
                translated.append(word)
                option = "" if name in _SWITCHES else name
                continue
        else:
            name = option
            equals = ""
            value = word
            if not option:
                argument = word
        option = ""
        if name in ("--output", "--memory") or (not name and verb not in _BY_FILE):
            value = path_on_cluster(shared, value, name or verb)
        elif name == "--task-file":
            with problems.collect():
                value = inputs.add_task(value, "--data" in option_names)
        elif name in _PATHS:
            # The verb's own argument may be the name of a shipped space.
            value = inputs.add(value if name else str(find_space(value)))
            if not name and value == word:
                problems.add(f"{word}: no such file.")
        translated.append(f"{name}={value}" if equals else value)
    if not argument and verb not in ("doctor", "distill", "teacher"):
        problems.add(f"{verb}: lacks {'its YAML' if verb in _BY_FILE else 'a folder'}.")
    if problems.lines:
        raise InputError([f"submit: {problem}" for problem in problems.lines])
    if verb in ("search", "distill", "memory") and "--student-model" not in option_names:
        translated += inputs.add_base_of_teacher(arguments)
    if verb in ("search", "resume", "confirm", "doctor"):
        translated += ["--address", "auto"]
    return translated, inputs.files


def _with_hyphens(word: str) -> str:
    """Return a word of a command with hyphens in the name of its flag, which may be written with underscores."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}"


class _Inputs:
    """The files and folders of this machine that a command needs on the cluster.

    Attributes:
        files: the local paths, by their paths on the cluster.
    """

    def __init__(self, shared: str) -> None:
        self.files: dict[str, Path] = {}
        self._folder = f"{shared}/inputs"

    def add(self, value: str) -> str:
        """Add a file or folder and return its path on the cluster.

        A value that is not an existing path, such as a hub id, is returned unchanged.
        """
        # For `teachers/{task}`, the folder with the teachers of all tasks is sent.
        before, placeholder, after = value.partition("{task}")
        path = local_path(before)
        if placeholder and not before.endswith("/"):
            path, placeholder = path.parent, path.name + placeholder
        if not value or not path.exists():
            return value
        absolute = path.resolve()
        target = f"{self._folder}/{digest(str(absolute))[:6]}-{_plain(absolute.name)}"
        self.files[target] = path
        return f"{target}/{placeholder}{after}" if placeholder else target

    def add_task(self, value: str, with_data: bool) -> str:
        """Add the YAML of the user's own task, and its files unless `--data` is given; return its path on the cluster.

        Raises:
            InputError: the YAML cannot be read, or a file in it is missing or outside its folder.
        """
        tables = task_file.read_task_file(local_path(value)).tables
        assert tables is not None
        target = f"{self._folder}/{digest(str(tables.file.resolve()))[:6]}-{_plain(tables.file.stem)}"
        self.files[f"{target}/{tables.file.name}"] = tables.file
        problems = ProblemCollector()
        for split, file in ((split, file) for split, files in tables.files for file in files):
            path, parts = tables.file.parent / file, Path(file).parts
            if Path(file).is_absolute() or {"..", "~"} & set(parts):
                below = "--data" if with_data else "the YAML's own folder"
                problems.add(f"{value}: files.{split}: found {file}, but for a cluster must lie below {below}.")
            elif not with_data:
                matching = [path] if path.is_file() else sorted(tables.file.parent.glob(file))
                if not matching:
                    problems.add(f"{value}: files.{split}: {path}: no such file.")
                for match in matching:
                    self.files[f"{target}/{match.relative_to(tables.file.parent)}"] = match
        problems.raise_any()
        return f"{target}/{tables.file.name}"

    def add_base_of_teacher(self, arguments: Sequence[str]) -> list[str]:
        """Add the pretrained model of the students, if the teacher records a local folder as its own pretrained model.

        Returns:
            The words of `--student-model`; empty if there is no such folder.
        """
        pairs = [*itertools.pairwise(arguments), *(word.split("=", 1) for word in arguments if "=" in word)]
        teacher = next((value for name, value in pairs if name == "--teacher"), "")
        base = ModelRecord.read(teacher).base if teacher else None
        return ["--student-model", self.add(base)] if base and Path(base).is_dir() else []


def _plain(name: str) -> str:
    """Return the name of a copy on the cluster: rsync passes it through a shell there, which must not expand it."""
    return re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)


def path_on_cluster(shared: str, output: str, place: str) -> str:
    """Return the path of an experiment folder on the cluster, or its URI.

    Args:
        shared: the folder that all nodes share.
        output: a path relative to `shared`, an absolute path, or a URI.
        place: the option or verb to name in messages.

    Raises:
        InputError: the path is outside `shared`, or the URI is invalid.
    """
    if is_uri(output):
        if problems := problems_of(output, place):
            raise InputError(problems)
        return output
    path = posixpath.normpath(posixpath.join(shared, output))
    if not path.startswith(f"{shared}/"):
        raise InputError(f"{place}: {output} does not lie in {shared}, which all nodes share.")
    return path
