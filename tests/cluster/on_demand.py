"""A node provider for Ray's autoscaler: hosts of the lab that are given out on demand, as a cloud gives machines.

`provider: {type: external, module: tests.cluster.on_demand.Hosts}` makes Ray's autoscaler load it, on the laptop for
the head and on the head for the workers. What is given out stands in a file of the machine that gives it.
"""

import json
import secrets
import subprocess
import threading
from pathlib import Path
from typing import Any

from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

_SSH = ("ssh", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5")


class Hosts(NodeProvider):  # type: ignore[misc]
    """`head_ip`, `worker_ips` and `key` of the provider's section.

    A node's id is its host's address and a word of its own: Ray takes an id that it has seen go for gone for ever.
    """

    _lock = threading.RLock()

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._file = Path(f"~/.{cluster_name}-given-out.json").expanduser()
        # `ray up` writes this on the head alone: who runs there has a head already.
        if Path("~/ray_bootstrap_config.yaml").expanduser().exists() and not self._given():
            head = {
                TAG_RAY_NODE_KIND: NODE_KIND_HEAD,
                TAG_RAY_USER_NODE_TYPE: "head",
                TAG_RAY_NODE_NAME: f"ray-{cluster_name}-head",
                TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
            }
            self.create_node({}, head, 1)

    def _given(self) -> dict[str, dict[str, str]]:
        try:
            found: dict[str, dict[str, str]] = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        return found

    def _put(self, given: dict[str, dict[str, str]]) -> None:
        self._file.write_text(json.dumps(given))

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        with self._lock:
            return [node for node, tags in self._given().items() if tag_filters.items() <= tags.items()]

    def is_running(self, node_id: str) -> bool:
        with self._lock:
            return node_id in self._given()

    def is_terminated(self, node_id: str) -> bool:
        return not self.is_running(node_id)

    def node_tags(self, node_id: str) -> dict[str, str]:
        with self._lock:
            return self._given()[node_id]

    def internal_ip(self, node_id: str) -> str:
        return node_id.rpartition("-")[0]

    external_ip = internal_ip

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        with self._lock:
            given = self._given()
            given[node_id] |= tags
            self._put(given)

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        config = self.provider_config
        with self._lock:
            given = self._given()
            if tags[TAG_RAY_NODE_KIND] == NODE_KIND_HEAD:
                # Laptop and head must call it the same.
                self._put(given | {f"{config['head_ip']}-head": dict(tags)})
                return
            taken = {self.internal_ip(node) for node in given}
            free = [address for address in config["worker_ips"] if address not in taken]
            self._put(given | {f"{address}-{secrets.token_hex(3)}": dict(tags) for address in free[:count]})

    def terminate_node(self, node_id: str) -> None:
        """A cloud would take the machine away."""
        key = Path(self.provider_config["key"]).expanduser()
        subprocess.run(
            [*_SSH, "-i", key, f"root@{self.internal_ip(node_id)}", "bash -lc 'ray stop --force'"],
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        with self._lock:
            given = self._given()
            given.pop(node_id, None)
            self._put(given)

    @staticmethod
    def bootstrap_config(cluster_config: dict[str, Any]) -> dict[str, Any]:
        return cluster_config
