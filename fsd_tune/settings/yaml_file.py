"""Read YAML text as plain data with the line of every key, and write plain data as YAML.

Values follow YAML 1.2 instead of PyYAML's 1.1, because 1.1 surprises users: it reads `1e-4` as text, `off` as false and
`1:30` as 90. `dump` writes text that readers of either version understand.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fsd_tune.errors import InputError, nearest

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]

MAX_BYTES = 256 * 1024
MAX_VALUES = 10_000
MAX_DEPTH = 50

_TAG = "tag:yaml.org,2002:"
_PLAIN_SCALARS = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+0123456789."),
    ),
    ("merge", r"^<<$", ["<"]),
)


# A key and its value without the space after the colon, which YAML reads as one piece of text.
_NO_SPACE = re.compile(r"(?:- +)*([A-Za-z_][\w-]*):([^\s:/\\].*)")


_SURROGATE = re.compile("[\ud800-\udfff]")


class Issue(NamedTuple):
    """A problem in the text; the rest can still be read.

    Attributes:
        line: the line, from 1.
        path: the key path.
        message: what is wrong.
        unusable: whether the value at `path` could not be read, so that it is not checked any further.
    """

    line: int
    path: KeyPath
    message: str
    unusable: bool


class Document(NamedTuple):
    """The content of one YAML file.

    Attributes:
        data: the values.
        lines: the line, from 1, of each key path and list item.
        issues: problems of the text.
    """

    data: dict[str, Any]
    lines: Lines
    issues: list[Issue]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  (PyYAML's own class attribute, replaced on purpose)


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes text which YAML 1.1 or 1.2 would read as another type, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _kind, _pattern, _first in _PLAIN_SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), _first)


class Flow(dict[str, Any]):
    """A mapping that `dump` writes on one line."""


_Dumper.add_representer(Flow, lambda dumper, data: dumper.represent_mapping(_TAG + "map", data, flow_style=True))
_Dumper.add_representer(list, lambda dumper, data: dumper.represent_sequence(_TAG + "seq", data, flow_style=True))


class _TooMuchError(Exception):
    """An error for text that expands to more values than any settings file has."""


def read_yaml(path: Path | str, example: str = "method") -> Document:
    """Read a YAML file in UTF-8 that holds a mapping; a byte order mark and CRLF are accepted.

    Args:
        path: the file.
        example: a key that error messages give as an example.

    Returns:
        The content. Duplicate keys, tags and keys that are not text are among its issues.

    Raises:
        InputError: the file is missing, empty, a folder or binary, or it is not YAML.
    """
    text = _text(Path(path))
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise InputError(f"{path}: is empty, but must hold at least `{example}:`.")
        if not isinstance(node, yaml.MappingNode):
            if isinstance(node, yaml.ScalarNode) and (problem := _missing_space(node.value)):
                raise InputError(f"{path}:{_line(node)}: {problem}")
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise InputError(f"{path}:{_line(node)}: found {kind}, but must be a mapping of keys such as `{example}:`.")
        builder = _Builder()
        data = builder.build(node, ())
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, _TooMuchError) as error:
        line, reason = _reason(error, text)
        raise InputError(f"{path}{f':{line}' if line else ''}: {reason}") from None
    return Document(data if isinstance(data, dict) else {}, builder.lines, builder.issues)


def parse_value(text: str) -> Any:
    """Return the value of a flag's text, read as YAML.

    Args:
        text: the value of a flag, such as `0.5`, `[1, 2]` or `{low: 0, high: 1}`.

    Returns:
        None, a boolean, a number, text, a list or a mapping.

    Raises:
        ValueError: the text cannot be read; the message says why.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        builder = _Builder()
        value = None if node is None else builder.build(node, ())
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, _TooMuchError) as error:
        raise ValueError(_reason(error, text)[1]) from None
    if builder.issues:
        raise ValueError(builder.issues[0].message)
    return value


def dump(data: dict[str, Any]) -> str:
    """Return plain data as YAML: mappings as blocks, lists and `Flow` mappings on one line, keys in their order.

    Args:
        data: {key: value} of None, booleans, numbers, text, lists and mappings.
    """
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False)


def _text(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path}: is a folder, but must be a YAML file.")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        folder = path.parent
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        raise InputError(f"{path}: no such file.{nearest(path.name, names)}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if b"\0" in raw:
        raise InputError(f"{path}: is binary or not saved as UTF-8, but must be YAML text in UTF-8.")
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path}: is larger than {MAX_BYTES // 1024} KiB, which no settings file needs.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: is binary or not saved as UTF-8, but must be YAML text in UTF-8.") from None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _reason(error: Exception, text: str) -> tuple[int | None, str]:
    """Return the line, if known, and the message of an error of PyYAML or of the builder."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return line, f"found the control character {chr(int(error.character))!r}, but must be plain text."
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line_number = mark.line + 1 if mark else None
        problem = error.problem or error.context or "cannot be parsed"
        lines = text.splitlines()
        at_error = lines[mark.line] if mark and mark.line < len(lines) else ""
        if "'\\t'" in problem or (at_error[: -len(at_error.lstrip())].count("\t") and "not allowed" in problem):
            return line_number, "found a tab, but YAML indents with spaces."
        if "expected a single document" in (error.context or ""):
            return line_number, "found a second document after `---`, but must hold one."
        if any(words in problem for words in ("mapping values are not allowed", "expected ':'", "<block end>")):
            # The text of a key without a space goes on in the lines below it, where the parser notices.
            above = [(number, line) for number, line in enumerate(lines[: line_number or 0], 1) if _content(line)][-2:]
            for number, line in reversed(above):
                if missing := _missing_space(_content(line)):
                    return number, missing
            if problem.startswith("could not find") and error.context_mark:
                number = error.context_mark.line + 1
                return number, f"found `{_start(_content(lines[number - 1]))}`, but must be a key, a colon and a value."
        if "mapping values are not allowed" in problem:
            problem = "a colon within a value; the key above lacks its colon, or this line has too much indentation"
        return line_number, f"is not YAML: {problem}."
    if isinstance(error, RecursionError):
        return None, f"is nested more than {MAX_DEPTH} deep."
    if isinstance(error, ValueError | OverflowError):
        return None, "is not YAML: an escape such as \\U names no character."
    return None, str(error)


def _unusable_text(text: str) -> str:
    """Return the problem of text with escapes that neither a file's name nor a file can hold; empty if it has none."""
    if "\0" in text:
        return "found the escape of a null character, but must be plain text."
    return "found the escape of half a character, but must be whole." if _SURROGATE.search(text) else ""


def _start(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _content(line: str) -> str:
    """Return a line without indentation; empty for a comment."""
    return "" if line.lstrip().startswith("#") else line.strip()


def _missing_space(text: str) -> str:
    """Return the problem of text such as `alpha:0.5`; empty if it is not of this form."""
    match = _NO_SPACE.match(text)
    if match is None:
        return ""
    key, value = match.groups()
    return f"found `{_start(text)}`, but must have a space after the colon: `{key}: {_start(value)}`."


class _Builder:
    """A builder of plain data from a node tree. It copies each alias, and collects lines and issues."""

    def __init__(self) -> None:
        self.lines: Lines = {}
        self.issues: list[Issue] = []
        self._values = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooMuchError(f"expands to more than {MAX_VALUES} values, which no settings file needs.")
        if len(path) > MAX_DEPTH:
            raise RecursionError
        self.lines.setdefault(path, _line(node))
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            if problem := _unusable_text(node.value):
                self._issue(node, path, problem, True)
                return None
            try:
                return _scalar(kind, node.value)
            except (ValueError, KeyError):
                pass
        tag = node.tag.replace(_TAG, "!!", 1)
        self._issue(node, path, f"found the tag `{tag}`, but must be plain text, a number, a list or a mapping.", True)
        return None

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in sources:
                    values = self.build(source, path)
                    if isinstance(values, dict):
                        merged = values | merged
                    else:
                        self._issue(source, path, "found `<<` with a value, but must be with a mapping.", True)
                continue
            if (
                not isinstance(key_node, yaml.ScalarNode)
                or not key_node.tag.startswith(_TAG)
                or _unusable_text(key_node.value)
            ):
                self._issue(key_node, path, "found a key that is not plain text.", True)
                continue
            key, line = key_node.value, _line(key_node)
            if key in own:
                first = self.lines[(*path, key)]
                self._issue(key_node, (*path, key), f"found twice, on lines {first} and {line}, but must be once.")
                continue
            self.lines[(*path, key)] = line
            for part in (key_node, value_node):
                # A text that begins below its key, or a key without a value, was meant to be a key with a value.
                alone = _line(value_node) > line if part is value_node else value_node.value == ""
                plain = alone and isinstance(part, yaml.ScalarNode) and part.style is None
                if plain and (problem := _missing_space(part.value)):
                    self._issue(part, (*path, key) if part is value_node else path, problem, True)
            own[key] = self.build(value_node, (*path, key))
        return merged | own

    def _issue(self, node: yaml.Node, path: KeyPath, message: str, unusable: bool = False) -> None:
        self.issues.append(Issue(_line(node), path, message, unusable))


def _scalar(kind: str, text: str) -> Any:
    """Return the value of a scalar of the YAML type `kind`.

    Raises:
        ValueError: the text is not a value of this type, or the type is unknown.
        KeyError: the text is not a boolean.
    """
    if kind in ("str", "merge"):
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return {"true": True, "false": False}[text.lower()]
    digits = text.replace("_", "")
    if kind == "int":
        # Python cannot print numbers beyond its limit of digits. They are out of every range, as infinity is.
        return int(digits) if len(digits) < 1000 else float("inf")
    if kind == "float":
        word = digits.lower().lstrip("+-")
        if word in (".inf", ".nan"):
            return float(digits.replace(".", ""))
        return float(digits)
    raise ValueError(kind)
