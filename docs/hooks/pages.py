"""An MkDocs hook that writes the pages which come from the code or from files at the repository's root.

reference/settings.md comes from the schema, reference/published-flags.md from the table of flags, reference/cli.md from
the commands, reference/python.md from `fsd_tune.__all__`, tutorials/notebook.md from the notebook, contributing.md and
changelog.md from the root.
"""

import importlib
import inspect
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import fsd_tune
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, OPTIMISATION, TERMS
from fsd_tune.settings.published_flags import FLAGS
from fsd_tune.settings.reference import SettingDescription, describe_settings
from fsd_tune.settings.schema import SECTIONS

ROOT = Path(__file__).parents[2]
NOTEBOOK = "examples/search_in_python.ipynb"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site's files."""
    pages: dict[str, Callable[[], str]] = {
        "reference/settings.md": settings_page,
        "reference/cli.md": cli_page,
        "reference/python.md": python_page,
        "reference/published-flags.md": published_flags_page,
        "tutorials/notebook.md": notebook_page,
        "contributing.md": lambda: root_page("CONTRIBUTING.md", config.extra["repository"]),
        "changelog.md": lambda: root_page("CHANGELOG.md", config.extra["repository"]),
    }
    for path, write in pages.items():
        files.append(File.generated(config, path, content=write()))
    return files


# Settings.

_SETTINGS = """# Settings

A settings file is YAML. Unknown keys are errors, and every problem is reported at once with its line. The files in
`search_spaces/` are commented examples, and `fsd-tune validate FILE` prints all settings with their values.

A flag overrides the file: `student.layers` is `--student-layers`, `search.trials` is `--trials` or `--search-trials`,
and a hyperparameter is plain (`--alpha`, `--gamma-i`).
"""
_SPACE = """A search space has one entry per hyperparameter. Each entry is one of:

| entry | meaning |
| --- | --- |
| `0.5` | fixed |
| `{low: 1.0, high: 10.0}` | a range, ends included; of whole numbers if the hyperparameter is one |
| `{low: 0.01, high: 10.0, log: true}` | a range that is searched on a logarithmic scale |
| `{low: 0.1, high: 0.9, step: 0.1}` | a range with steps, which a grid needs |
| `{choice: [16, 32]}` | one of the listed values |
| `{..., when: {method: [fsd_g, fsd_ilg]}}` | any of the above, drawn only if the condition holds |

A method's own hyperparameters must be in the space. The optimisation hyperparameters may be left out and then have
their defaults."""


def settings_page() -> str:
    """Return the page of all settings: the space's hyperparameters, then every section of the YAML."""
    settings = {setting.key: setting for setting in describe_settings()}
    methods = ((f"`{name}`", method.formula, _code(method.hyperparameters)) for name, method in METHODS.items())
    lines = [
        _SETTINGS,
        "## Top level",
        "",
        *_settings_table([settings["method"], settings["published"], settings["precision"]]),
        "",
        "## `space`",
        "",
        _SPACE,
        "",
        "### Hyperparameters of the methods",
        "",
        "[The method](../explanation/method.md#loss-terms) explains the formulas.",
        "",
        *_settings_table([settings[f"space.{name}"] for name in HYPERPARAMETERS if name not in OPTIMISATION]),
        "",
        "| method | loss | its own hyperparameters |",
        "| --- | --- | --- |",
        *(f"| {name} | {formula} | {names} |" for name, formula, names in methods),
        "",
        "### Optimisation hyperparameters",
        "",
        *_settings_table([settings[f"space.{name}"] for name in OPTIMISATION]),
        "",
    ]
    for name, section in SECTIONS.items():
        doc = inspect.getdoc(section) or ""
        extra = [" `asha: off` runs every trial to its end."] if name == "asha" else []
        lines += [f"## `{name}`", "", "".join([doc.splitlines()[0], *extra]), ""]
        lines += [*_settings_table([each for key, each in settings.items() if key.startswith(f"{name}.")]), ""]
    return "\n".join(lines)


def _settings_table(settings: Sequence[SettingDescription]) -> list[str]:
    rows = [
        (
            setting.key.partition(".")[2] or setting.key,
            # A space's entries have the same forms, which the page lists once.
            setting.accepted.removesuffix(", a range {low: .., high: ..} of them or {choice: [..]}"),
            f"`{setting.default}`" if setting.default else "required",
            setting.description,
        )
        for setting in settings
    ]
    return _table(("key", "accepted", "default", "meaning"), rows)


def published_flags_page() -> str:
    """Return the page of the published scripts' flags."""
    rows = (
        (f"`{flag.name}`", flag.scripts, f"`{flag.here}`" if flag.here else "nothing", flag.meaning) for flag in FLAGS
    )
    lines = [
        "# Flags of the published scripts",
        "",
        "What each flag of the published code really does, and what does the same here. I, L, G and ILG are the",
        "scripts `glue_with_cka_i.py` and so on, memory is `train_memory.py`. `published: true` sets what all runs of",
        "that code share; see [Differences from the published code](../explanation/published-code.md).",
        "",
        *_table(("their flag", "scripts", "here", "what it does"), rows),
    ]
    return "\n".join(lines) + "\n"


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "-"


# The command line.

_COMMANDS = """# Command line

`fsd-tune VERB --help` prints the same. `--json` prints the result as one document, `--debug` the traceback of an error.
Flags may be written with underscores. Verbs that take settings accept a flag for every key of [Settings](settings.md);
these flags are not repeated here.

Exit codes: 0 done, 1 failed midway (what was finished is kept, and the command that continues is printed), 2 wrong
input, 130 interrupted.
"""


_PANELS = ("Train", "Search", "Inspect", "Publish", "Cluster")


def root_command() -> Any:
    """Return the command group of `fsd-tune`, a `click.Group`."""
    importlib.import_module("fsd_tune.cli.main")  # registers the verbs
    return importlib.import_module("fsd_tune.cli.app").app


def cli_page() -> str:
    """Return the page of all verbs and their flags, by group."""
    group = root_command()
    commands = [group.get_command(None, name) for name in sorted(group.list_commands(None))]
    panels: dict[str, list[Any]] = {panel: [] for panel in _PANELS}
    for command in commands:
        if not command.hidden:
            panels.setdefault(getattr(command, "panel", "Verbs"), []).append(command)
    lines = [_COMMANDS]
    for panel, verbs in panels.items():
        lines += [f"## {panel}", ""] if verbs else []
        for command in verbs:
            lines += _verb(command)
    return "\n".join(lines)


def _verb(command: Any) -> list[str]:
    parameters = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    usage = " ".join(["fsd-tune", command.name, *(_argument(argument) for argument in arguments), "[OPTIONS]"])
    rows = [
        (_flag(parameter), "required" if parameter.required else _flag_default(parameter), _flag_help(parameter))
        for parameter in parameters
        if not _sets_a_setting(parameter) and "--help" not in parameter.opts
    ]
    lines = [f"### {command.name}", "", _cell(command.help or ""), "", "```text", usage, "```", ""]
    lines += [*_table(("argument or flag", "default", "meaning"), rows, code=False), ""]
    if any(_sets_a_setting(parameter) for parameter in parameters):
        lines += ["Beside these: a flag for every [setting](settings.md).", ""]
    return lines


def _argument(parameter: Any) -> str:
    name = parameter.name.upper()
    name = f"{name}..." if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _sets_a_setting(parameter: Any) -> bool:
    """Whether a flag sets a key of the YAML: its help then begins with the key."""
    keys = {f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields}
    keys |= {*HYPERPARAMETERS, "method", "precision"}
    own = set(SECTIONS)
    help_text = getattr(parameter, "help", None) or ""
    key = help_text.partition(":")[0].removeprefix("space.")
    return parameter.param_type_name == "option" and (key in keys | own)


def _flag(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    names = " ".join(f"`{name}`" for name in parameter.opts)
    kind = getattr(parameter, "type", None)
    if kind is None or parameter.is_flag:
        return names
    accepted = kind.get_metavar(parameter, None) if hasattr(kind, "get_metavar") else None
    return f"{names} {_cell(parameter.metavar or accepted or kind.name)}"


def _flag_default(parameter: Any) -> str:
    value = parameter.default
    shown = isinstance(value, bool | int | float | str | Path) and value is not False and value != ""
    return f"`{value}`" if shown else ""


def _flag_help(parameter: Any) -> str:
    return getattr(parameter, "help", None) or getattr(parameter, "missing_help", None) or ""


# Python.

_PYTHON = """# Python API

```python
import fsd_tune as fsd
```

The names of this page are imported when they are first used, so `import fsd_tune` takes no time. Progress is reported
through `logging.getLogger("fsd_tune")`. A call restores signal handlers, environment variables and log levels before
it returns. [A search in Python](../tutorials/notebook.md) uses most of them. `fsd.__version__` is the version as text.
"""

_DOCUMENTED = (
    "fsd_tune.cka.linear_cka",
    "fsd_tune.losses.kd_loss",
    "fsd_tune.losses.global_loss",
    *(f"fsd_tune.losses.{term.loss}" for term in TERMS.values() if term.loss),
)


def python_page() -> str:
    """Return the page of the Python API: every public name of the package, then the functions on tensors."""
    lines = [_PYTHON]
    names = [name for name in getattr(fsd_tune, "__all__", ()) if name != "__version__"]
    objects = {f"fsd_tune.{name}": getattr(fsd_tune, name) for name in names}
    for path, value in objects.items():
        if not inspect.ismodule(value):
            lines += _reference(path, value)
    lines += ["## Functions on tensors", "", "The modules `fsd_tune.cka` and `fsd_tune.losses` know no models.", ""]
    for path in _DOCUMENTED:
        lines += _reference(path, _resolve(path), level=3)
    return "\n".join(lines)


def _resolve(path: str) -> Any:
    package, _, name = path.rpartition(".")
    return getattr(__import__(package, fromlist=[name]), name)


def _reference(path: str, value: Any, level: int = 2) -> list[str]:
    """Return the lines that make mkdocstrings describe an object under its public path."""
    source = f"{value.__module__}.{value.__qualname__}"
    options = [f'heading: "{path}"', f'toc_label: "{path.rpartition(".")[2]}"', f"heading_level: {level}"]
    return [f"::: {source}", "    options:", *(f"      {option}" for option in options), ""]


# The notebook and the files at the root.


def notebook_page() -> str:
    """Return the notebook as a page: its text, its code and the text that its cells print."""
    lines: list[str] = []
    for cell in json.loads((ROOT / NOTEBOOK).read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in cell.get("outputs", ()):
            text = output.get("text") or output.get("data", {}).get("text/plain") or ""
            if text:
                lines += ["```text", "".join(text).rstrip(), "```", ""]
    return "\n".join(lines)


def root_page(name: str, repository: str) -> str:
    """Return a file of the repository's root with its relative links made to work from the site."""

    def link(match: re.Match[str]) -> str:
        target = match[1]
        if "://" in target or target.startswith("#"):
            return match[0]
        page = target.removeprefix("docs/")
        return f"]({page})" if page != target else f"]({repository}/blob/main/{target})"

    return re.sub(r"\]\(([^)\s]+)\)", link, (ROOT / name).read_text())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], code: bool = True) -> list[str]:
    """Return the lines of a Markdown table; the first column is set as code if `code`."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for first, *rest in rows:
        cells = [f"`{first}`" if code else first, *(_cell(cell) for cell in rest)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
