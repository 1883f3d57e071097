"""The look at one node of a cluster, run on it as a Ray task.

The code of this module is sent to the node (pickled by value), so that a node without this package can say so. It must
therefore import nothing of this package, and at the top level only the standard library.
"""

import os
import platform
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any


def probe(
    folder: str, mark: str, token: str, node: str, packages: list[str], paths: list[str], copies: str, with_gpu: bool
) -> dict[str, Any]:
    """Report what this node has and sees.

    Args:
        folder: the experiment folder, a path or a URI.
        mark: the name of the file that the driver has written there.
        token: its content.
        node: a name for this node; it writes a file `{mark}-{node}` beside.
        packages: names of distributions whose versions are wanted, or `python`.
        paths: files and folders that must be readable.
        copies: the folder of this node's copy of teacher outputs and memory; empty if it keeps none.
        with_gpu: whether to ask torch for CUDA.

    Returns:
        `versions` (by package), `storage` (what is wrong with the experiment folder; empty if nothing is), `unread`
        (the paths that cannot be read), `cuda` (False if torch was asked and sees no GPU), `free` (bytes free for
        temporary files), `room` (bytes for the copies; None without any).
    """
    return {
        "versions": {package: _version(package) for package in packages},
        "storage": _storage_problem(folder, mark, token, node),
        "unread": [path for path in paths if not os.access(path, os.R_OK)],
        "cuda": not with_gpu or _sees_cuda(),
        "free": shutil.disk_usage(tempfile.gettempdir()).free,
        "room": _room(Path(copies)) if copies else None,
    }


def _version(package: str) -> str:
    try:
        version = platform.python_version() if package == "python" else metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
    # A damaged installation has no version either.
    return version or "not installed"


def _storage_problem(folder: str, mark: str, token: str, node: str) -> str:
    """Read the driver's mark and write this node's; return what went wrong, or nothing."""
    try:
        if "://" in folder:
            from pyarrow import fs

            system, root = fs.FileSystem.from_uri(folder)
            with system.open_input_stream(f"{root}/{mark}") as source:
                content = source.read().decode()
            with system.open_output_stream(f"{root}/{mark}-{node}") as target:
                target.write(token.encode())
        else:
            content = Path(folder, mark).read_text(encoding="utf-8")
            Path(folder, f"{mark}-{node}").write_text(token, encoding="utf-8")
    except FileNotFoundError:
        return "does not see what the driver writes there"
    except OSError as error:
        return f"cannot use it ({error.strerror or str(error).splitlines()[0]})"
    return "" if content == token else "reads other contents than were written"


def _sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _room(copies: Path) -> int:
    """Return the bytes free for the copies; those that an earlier search has left count as free."""
    existing = next(path for path in (copies, *copies.parents) if path.exists())
    present = sum(path.stat().st_size for path in copies.rglob("*") if path.is_file())
    return present + shutil.disk_usage(existing).free
