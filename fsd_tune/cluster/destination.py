"""Where Ray is to run: on a cluster or as a local instance. Checked without importing Ray, so that it takes no time."""

import os
from pathlib import Path

from fsd_tune.cluster import private_ray
from fsd_tune.errors import InputError


def check(address: str | None, temporary: Path | None) -> None:
    """Refuse what `connection.connect` would refuse without asking a cluster, so that it is said before any work.

    Args:
        address: as for `connection.connect`.
        temporary: as for `connection.connect`.

    Raises:
        InputError: the address is that of a dashboard, or Ray cannot use the folder.
    """
    if not resolve(address)[1]:
        private_ray.check_folder(temporary)


def resolve(address: str | None) -> tuple[str, str | None]:
    """Return the address of the cluster to use, None for a local instance, and the flag or variable that gives it.

    Args:
        address: as for `connection.connect`.

    Raises:
        InputError: it is the address of a dashboard, which takes jobs but no drivers.
    """
    flag, found = "--address", (address or "").strip()
    configured = os.environ.get("RAY_ADDRESS", "").strip()
    if found in ("", "auto") and configured not in ("", found):  # `ray.init` takes RAY_ADDRESS for `auto`.
        flag, found = "RAY_ADDRESS", configured
    if "://" in found and not found.startswith("ray://"):
        raise not_a_cluster(flag, found)
    # `ray.init` takes `local` for a new local instance.
    return flag, None if found in ("", "local") else found


def not_a_cluster(flag: str, found: str) -> InputError:
    """Return the error for an address at which no cluster's head is.

    Args:
        flag: the flag or variable that gives it.
        found: the address.
    """
    local = "unset RAY_ADDRESS" if flag == "RAY_ADDRESS" else "leave it out"
    return InputError(
        f"{flag}: found {found}, the address of a dashboard or another server, but must be that of a cluster's head, "
        f"such as host:6379; {local} to run on this machine."
    )
