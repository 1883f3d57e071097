"""The probe of one cluster node, which runs on the node as a Ray task.

The code of this module is sent to the node (pickled by value), so that the probe also runs on a node without this
package. It must therefore not import this package, and at the top level only the standard library.
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
    """Return the versions, free space and readable files of this node.

    Args:
        folder: the experiment folder, a path or a URI.
        mark: the name of the marker file that the driver has written there.
        token: the content of this file.
        node: a name for this node; the probe writes a file `{mark}-{node}` beside the driver's.
        packages: names of distributions whose versions to return, or `python`.
        paths: files and folders that must be readable.
        copies: the folder for this node's copy of teacher outputs and memory; empty if it needs no copy.
        with_gpu: whether to ask torch for CUDA.

    Returns:
        `versions` (by package), `storage` (the problem with the experiment folder; empty if there is none), `unread`
        (the paths that cannot be read), `cuda` (False if torch was asked and sees no GPU), `free` (free bytes for
        temporary files) and `room` (free bytes for the copy; None if there is no copy).
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
    # The version is None in a damaged installation.
    return version or "not installed"


def _storage_problem(folder: str, mark: str, token: str, node: str) -> str:
    """Read the driver's marker file and write this node's; return the problem, or an empty text."""
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
        return "does not see the files that the driver writes there"
    except OSError as error:
        return f"cannot use it ({error.strerror or str(error).splitlines()[0]})"
    return "" if content == token else "reads other content than the driver wrote"


def _sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _room(copies: Path) -> int:
    """Return the free bytes for the copy; files of an earlier search count as free."""
    existing_folder = next(path for path in (copies, *copies.parents) if path.exists())
    present = sum(path.stat().st_size for path in copies.rglob("*") if path.is_file())
    return present + shutil.disk_usage(existing_folder).free


def gpu_multiplies_bf16() -> bool:
    """Return whether the GPU that this task was given multiplies bfloat16 natively; emulation does not count."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
