"""Where Ray is to run: on a cluster or as a local instance. Only `auto` imports Ray, so that checks take no time."""

import contextlib
import os
import socket
from pathlib import Path

from fsd_tune.cluster import private_ray
from fsd_tune.errors import InputError

_ANSWER_SECONDS = 2.0
_LAST_PORT = 65535


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


def check_reachable(address: str, flag: str) -> None:
    """Check that a process listens at an address, because Ray itself would try for a minute.

    Args:
        address: of a cluster.
        flag: the flag or variable that gives it.

    Raises:
        InputError: nothing listens at the address, or a web server does.
    """
    resolved = _resolve_auto() if address == "auto" else address
    host, colon, port = resolved.removeprefix("ray://").rpartition(":")
    if not resolved or resolved == "local":  # Ray finds the head by itself.
        return
    if not colon or not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise InputError(f"{flag}: found {address}, but must be HOST:PORT, ray://HOST:PORT or auto.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5) as connected:
            connected.settimeout(_ANSWER_SECONDS)
            with contextlib.suppress(OSError):  # A head answers in another protocol or not at all.
                connected.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if connected.recv(5) == b"HTTP/":
                    raise not_a_cluster(flag, address)
    except (OSError, ValueError, OverflowError) as error:  # A host's name that cannot exist is a ValueError.
        name = address if resolved == address else f"{resolved}, which is {address} here"
        raise InputError(f"{flag}: nobody answers at {name}: {getattr(error, 'strerror', None) or error}.") from None


def _resolve_auto() -> str:
    """Return the address that Ray uses for `auto`; empty if Ray finds the head by itself."""
    from ray._private.services import find_gcs_addresses
    from ray._private.utils import read_ray_address

    # Ray finds a running head by itself. Otherwise it uses the address of the last `ray start` on this machine.
    return "" if find_gcs_addresses() else read_ray_address() or ""
