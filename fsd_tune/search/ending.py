"""The end of a search before its trials have ended: each running trial first saves its state.

The driver asks by a key in the key-value store of the cluster's head, which workers on any node can read between two
steps of a trial, whatever storage the search uses.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Collection
from threading import Event

from ray.exceptions import RayError
from ray.experimental import internal_kv
from ray.tune import Stopper

from fsd_tune.cluster import connection
from fsd_tune.errors import FsdTuneError
from fsd_tune.search.driver_only import DriverOnly

# How often a worker looks whether the search ends.
_LOOK_SECONDS = 1.0
# A machine that is taken back gives about 30 seconds' notice. What is not saved by then continues from an older
# checkpoint.
_SAVE_SECONDS = 20.0
# The key of a report that ends no interval: the trial has paused, and its state is saved.
SAVED = "saved"


class Ending(DriverOnly, Stopper):  # type: ignore[misc]
    """Ends a search in the driver: at an interrupt, after its time budget, or at an error that all trials share.

    Attributes:
        key: the name of the key that asks the workers to save.
        interrupted: set by an interrupt.
        asked: true after the workers were asked to save.
        failure: the error that ended the search; None if there is none.
    """

    def __init__(self, interrupted: Event, budget_seconds: float | None = None) -> None:
        """Start the time budget.

        Args:
            interrupted: the event that asks the search to end.
            budget_seconds: the seconds after which the search ends; None for no limit.
        """
        self.key = f"{connection.NAMESPACE}/ending/{secrets.token_hex(8)}"
        self.interrupted = interrupted
        self.asked = False
        self.failure: FsdTuneError | None = None
        self._budget_end = None if budget_seconds is None else time.monotonic() + budget_seconds
        self._save_end = 0.0
        self._saved: set[str] = set()
        self._over = False

    @property
    def due(self) -> bool:
        """True if the search is to end now."""
        is_spent = self._budget_end is not None and time.monotonic() >= self._budget_end
        return self.interrupted.is_set() or is_spent or self.failure is not None

    def ask(self) -> None:
        """Ask the workers to save."""
        self.asked = True
        self._save_end = time.monotonic() + _SAVE_SECONDS
        internal_kv._internal_kv_put(self.key, b"1")

    def saved(self, trial_id: str) -> None:
        """Record that a trial has nothing more to save.

        Args:
            trial_id: Tune's id of the trial.
        """
        self._saved.add(trial_id)

    def wait_is_over(self, running: Collection[str]) -> bool:
        """Return whether all running trials have saved, or the time for it has passed.

        Args:
            running: Tune's ids of the running trials.
        """
        return self._saved.issuperset(running) or time.monotonic() >= self._save_end

    def stop(self) -> None:
        """End the search.

        Raises:
            KeyboardInterrupt: at an interrupt. Otherwise Tune asks `stop_all`.
        """
        if self.interrupted.is_set():
            raise KeyboardInterrupt
        self._over = True

    def __call__(self, trial_id: str, result: object) -> bool:
        """Return False, because no single trial is stopped.

        Args:
            trial_id: not used.
            result: not used.
        """
        return False

    def stop_all(self) -> bool:
        """Return whether Tune is to end the search."""
        return self._over

    def close(self) -> None:
        """Delete the key."""
        if self.asked:
            with contextlib.suppress(RayError):
                internal_kv._internal_kv_del(self.key)


class EndingWatch:
    """Tells a worker whether its search ends; it asks the cluster's head once a second at most.

    Args:
        key: `Ending.key`.
        look: returns the value of the key; None if it is not set.
    """

    def __init__(self, key: str, look: Callable[[str], object] = internal_kv._internal_kv_get) -> None:
        self._key = key
        self._look = look
        self._looked_at = -_LOOK_SECONDS
        self._asked = False

    def asked(self) -> bool:
        """Return whether the driver asks to save. A head that does not answer asks for nothing."""
        if not self._asked and time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            with contextlib.suppress(RayError, RuntimeError):
                self._asked = self._look(self._key) is not None
            self._looked_at = time.monotonic()
        return self._asked
