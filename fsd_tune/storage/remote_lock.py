"""The lock of an experiment folder behind a URI, so that one process at a time writes to it."""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from fsd_tune.errors import InputError
from fsd_tune.storage.remote import RemoteFolder

LOCK_FILE = ".lock.json"
_RENEW_SECONDS = 20.0
# A lock that was not renewed for this time belongs to a process that has died.
_EXPIRY_SECONDS = 90.0


class RemoteLock:
    """A lock file in remote storage that its owner renews while it runs.

    Object storage has no locks of its own, so two processes that ask within the same second can both get the lock.
    """

    def __init__(self, storage: RemoteFolder) -> None:
        self._storage = storage
        self._token = secrets.token_hex(8)

    def check_free(self) -> None:
        """Check that no other running process has locked the folder.

        Raises:
            InputError: another process holds the lock.
        """
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            owner = json.loads(self._storage.read(LOCK_FILE))
            age = time.time() - float(owner["time"])
            died_on_this_host = owner.get("host") == socket.gethostname() and not psutil.pid_exists(int(owner["pid"]))
            if owner["token"] != self._token and age < _EXPIRY_SECONDS and not died_on_this_host:
                raise InputError(
                    f"{self._storage.uri}: another search is running there (last seen {max(age, 0):.0f} s ago); "
                    f"wait until it ends, stop it, or if its machine is lost, wait {_EXPIRY_SECONDS - age:.0f} s more."
                )

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock while the block runs, and renew it in a thread.

        Raises:
            InputError: another process holds the lock.
        """
        self.check_free()
        finished = threading.Event()
        renewal = threading.Thread(target=self._renew_until, args=(finished,), daemon=True)
        renewal.start()
        try:
            yield
        finally:
            finished.set()
            renewal.join()
            self._storage.delete(LOCK_FILE)

    def _renew_until(self, finished: threading.Event) -> None:
        owner = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid()}
        while not finished.is_set():
            # The storage may be temporarily unavailable; the next renewal tries again.
            with contextlib.suppress(OSError):
                self._storage.write(LOCK_FILE, json.dumps(owner | {"time": time.time()}).encode())
            finished.wait(_RENEW_SECONDS)
