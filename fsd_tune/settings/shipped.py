"""The search spaces that come with the package, by name.

An installed package contains them as `fsd_tune/search_spaces`, a checkout as `search_spaces/` beside the package.
"""

from importlib import resources
from pathlib import Path

from fsd_tune.errors import InputError, nearest


def shipped_spaces() -> list[str]:
    """Return the names of the shipped search spaces, sorted: `fsd_ilg`, and `paper/fsd` for those of a folder."""
    folder = _folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def shipped_space(name: str) -> Path:
    """Return the file of a shipped search space.

    Args:
        name: the name of the space, without `.yaml`.

    Raises:
        InputError: no shipped space has this name.
    """
    path = _folder() / f"{name}.yaml"
    if not path.is_file():
        raise InputError(unknown_space(name))
    return path


def find_space(text: str) -> Path:
    """Return the file that `text` names: a path, or the name of a shipped space unless a file has that name.

    A text that names neither is returned as a path, so that reading it reports what is missing.

    Args:
        text: the path or name that the user gave.
    """
    path = Path(text)
    return _folder() / f"{text}.yaml" if text in shipped_spaces() and not path.exists() else path


def is_bare_name(path: Path) -> bool:
    """Return whether `path` could be the name of a shipped space: one word without a suffix, or two as `paper/fsd`.

    Args:
        path: what the user gave as a settings file.
    """
    folders = {Path(name).parent for name in shipped_spaces()}
    return path.parent in folders and not path.suffix and path.name not in ("", "~", "..")


def unknown_space(name: str) -> str:
    """Return the problem line for a name that is neither a file nor a shipped space.

    Args:
        name: the name that the user gave.
    """
    names = shipped_spaces()
    return f"{name}: no such file; the shipped search spaces are {', '.join(names)}.{nearest(name, names)}"


def _folder() -> Path:
    installed = Path(str(resources.files("fsd_tune"))) / "search_spaces"
    return installed if installed.is_dir() else installed.parents[1] / "search_spaces"
