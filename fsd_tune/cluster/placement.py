"""Choose the nodes of trials (`resources.placement`): as few as possible (pack), or all of them (spread)."""

from collections.abc import Mapping

import ray
from ray import tune
from ray._private.state import available_resources_per_node
from ray.util.placement_group import PlacementGroup, placement_group

# The name of a resource that only the head has.
HEAD = "node:__internal_head__"
# The label by which Ray names every node.
NODE_ID = "ray.io/node-id"


class Packed(tune.PlacementGroupFactory):  # type: ignore[misc]
    """A trial's request for the fullest node with enough free resources.

    It is a preference: Ray takes another node if this one has died or is full by then. Without it, Ray chooses the
    emptiest node for a request of one bundle, under every strategy.
    """

    def to_placement_group(self) -> PlacementGroup:
        """Return the placement group; Tune calls this when the trial is about to start."""
        (bundle,) = self.bundles
        target = fullest(available_resources_per_node(), bundle)
        return placement_group(self.bundles, strategy="STRICT_PACK", _soft_target_node_id=target)


def request(placement: str, cpus: float, gpus: float) -> tune.PlacementGroupFactory:
    """Return a trial's request for resources.

    Args:
        placement: `pack` or `spread`.
        cpus: number of CPUs of a trial.
        gpus: number of GPUs of a trial; may be a fraction.
    """
    kind = Packed if placement == "pack" else tune.PlacementGroupFactory
    return kind([{"CPU": cpus, "GPU": gpus}])


def fullest(free: Mapping[str, Mapping[str, float]], bundle: Mapping[str, float]) -> str | None:
    """Return the node with the fewest free GPUs, then CPUs, among the nodes with enough for `bundle`.

    Args:
        free: free resources by node id.
        bundle: the requested resources; zeros can be omitted.

    Returns:
        The node id; None if no node has enough.
    """
    with_room = [
        node for node, has in free.items() if all(has.get(kind, 0) >= amount for kind, amount in bundle.items())
    ]
    return min(with_room, key=lambda node: (free[node].get("GPU", 0), free[node].get("CPU", 0), node), default=None)


def not_on_head() -> dict[str, str]:
    """Return the label selector that keeps an actor without resources off a head that runs no trials.

    It is empty if the head runs trials or is the only node. A soft `NodeAffinitySchedulingStrategy` does not suffice:
    Ray does not always follow it for an actor that needs no resources, and drops it when the node dies.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    heads = [str(node["NodeID"]) for node in nodes if HEAD in node["Resources"] and not node["Resources"].get("CPU")]
    workers = [node for node in nodes if HEAD not in node["Resources"] and node["Resources"].get("CPU")]
    return {NODE_ID: f"!{heads[0]}"} if heads and workers else {}
