"""The lock of an experiment folder behind a URI: one process at a time writes to it."""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.storage.remote import RemoteFolder

# The folder of the claims in the storage.
LOCKS = ".locks"
_RENEW_SECONDS = 20.0
# A claim that was not renewed for so long belongs to a process that has died.
_EXPIRY_SECONDS = 90.0
# How long a process waits for others that asked at the same time and are about to withdraw.
_UNDECIDED_SECONDS = 15.0
_PAUSE_SECONDS = 0.2


class RemoteLock:
    """A lock in remote storage that its owner renews as long as it lives.

    pyarrow cannot create an object only if it is absent. So each process writes a claim under a name of its own and
    then lists all claims: it has the lock if no other one is there. S3, GCS and disks list what was written before, so
    two processes cannot both miss the claim of the other. Of several that ask at once, the one with the smallest name
    stays and the others withdraw. Only the storage's own times are compared, so clocks may differ.
    """

    def __init__(self, storage: RemoteFolder) -> None:
        self._uri = storage.uri
        self._storage = storage.below(LOCKS)
        self._name = f"{secrets.token_hex(8)}.json"
        self._lost = ""

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock while the block runs, and renew it in a thread.

        Raises:
            InputError: another process holds the lock.
        """
        self._lost = ""
        try:
            self._acquire()
        except BaseException:
            self._withdraw()
            raise
        finished = threading.Event()
        renewing = threading.Thread(target=self._renew_until, args=(finished,), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            finished.set()
            renewing.join()
            self._withdraw()

    def check_held(self) -> None:
        """Refuse to write after another process has taken the lock over, because this one was silent for too long.

        Raises:
            FsdTuneError: another process has it.
        """
        if self._lost:
            raise FsdTuneError(f"{self._uri}: {self._lost}", "What was finished before is kept there.")

    def _acquire(self) -> None:
        deadline = time.monotonic() + _UNDECIDED_SECONDS
        while True:
            self._write("asking")
            others = self._others()
            if not others:
                self._write("held")
                # Look again, because this process may have been stopped for minutes before it wrote.
                others = [claim for claim in self._others() if claim["state"] == "held"]
                if not others:
                    return
            holders = [claim for claim in others if claim["state"] == "held"]
            if holders or min(others, key=_name_of)["name"] < self._name or time.monotonic() > deadline:
                raise InputError(_refusal(self._uri, (holders or others)[0]))
            time.sleep(_PAUSE_SECONDS)

    def _write(self, state: str) -> None:
        claim = {"state": state, "host": socket.gethostname(), "machine": _machine(), "pid": os.getpid()}
        self._storage.write(self._name, json.dumps(claim).encode())

    def _others(self) -> list[dict[str, Any]]:
        """Return the claims of other living processes, with `name` and `age`; delete those of dead ones."""
        times = self._storage.times()
        # The own claim has just been written, so its time is the storage's.
        now = times.get(self._name, max(times.values(), default=0.0))
        living = []
        for name, changed in times.items():
            if name == self._name:
                continue
            claim: dict[str, Any] = {"state": "held", "host": "an unknown host"}
            with contextlib.suppress(ValueError, TypeError):
                try:
                    claim |= json.loads(self._storage.read(name))
                except FileNotFoundError:  # It has been withdrawn meanwhile.
                    continue
            claim |= {"name": name, "age": now - changed}
            if claim["age"] > _EXPIRY_SECONDS or _died_here(claim):
                self._storage.delete(name)
            else:
                living.append(claim)
        return living

    def _renew_until(self, finished: threading.Event) -> None:
        while not finished.wait(_RENEW_SECONDS) and not self._lost:
            # Storage may be unavailable for a while; the next renewal tries again.
            with contextlib.suppress(OSError):
                self._renew()

    def _renew(self) -> None:
        """Renew the own claim, unless another process has deleted it."""
        if self._name not in self._storage.times():
            self._lost = "another search has taken it over, because this one was silent for too long."
            return
        self._write("held")
        holders = [claim for claim in self._others() if claim["state"] == "held"]
        if holders:
            # It was taken over between the look and the renewal, so the own claim has come back by mistake.
            self._lost = f"a search on {holders[0]['host']} has taken it over."
            self._withdraw()

    def _withdraw(self) -> None:
        # A claim that cannot be deleted now expires.
        with contextlib.suppress(OSError):
            self._storage.delete(self._name)


def _name_of(claim: dict[str, Any]) -> str:
    return str(claim["name"])


def _refusal(uri: str, owner: dict[str, Any]) -> str:
    left = max(_EXPIRY_SECONDS - owner["age"], 0.0)
    who = f"process {owner['pid']} on {owner['host']}" if "pid" in owner else owner["host"]
    return (
        f"{uri}: another search is running there ({who}, last seen {max(owner['age'], 0):.0f} s ago); wait for "
        f"its end, stop it, or if its machine is gone, wait {left:.0f} s more."
    )


def _machine() -> str:
    """Return what identifies this machine and its process table; containers may share a host name, but not this."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _died_here(claim: dict[str, Any]) -> bool:
    """Whether a claim belongs to a process of this machine that has ended."""
    try:
        return claim["machine"] == _machine() and not psutil.pid_exists(int(claim["pid"]))
    except (KeyError, TypeError, ValueError):
        return False
