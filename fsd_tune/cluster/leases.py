"""Leases: which searches use an actor that several share."""

import ray
from ray._private.state import jobs
from ray.experimental import internal_kv

from fsd_tune.cluster import connection
from fsd_tune.storage import artifacts


class Leases:
    """The searches that use an actor, in the key-value store of the cluster's head, which outlives the actor.

    A lease holds as long as its driver is connected to the cluster, so that a killed driver keeps no actor alive.

    Attributes:
        prefix: the beginning of the keys of this actor's leases.
    """

    def __init__(self, actor: str) -> None:
        """Read nothing yet.

        Args:
            actor: its id, in hex.
        """
        self.prefix = f"{connection.NAMESPACE}/{actor}/"

    def _key(self, search: str) -> str:
        # Ray counts a driver as one job.
        return f"{self.prefix}{ray.get_runtime_context().get_job_id()}/{artifacts.digest(search)}"

    def add(self, search: str) -> None:
        """Give a search of this driver a lease.

        Args:
            search: its name.
        """
        internal_kv._internal_kv_put(self._key(search), search)

    def remove(self, search: str) -> None:
        """Take back a search's lease.

        Args:
            search: its name.
        """
        internal_kv._internal_kv_del(self._key(search))

    def living(self) -> list[str]:
        """Return the keys of the leases of living drivers; delete the others."""
        drivers = {str(job["JobID"]) for job in jobs() if not job["IsDead"]}
        living = []
        for key in [key.decode() for key in internal_kv._internal_kv_list(self.prefix)]:
            if key.removeprefix(self.prefix).split("/")[0] in drivers:
                living.append(key)
            else:
                internal_kv._internal_kv_del(key)
        return living
