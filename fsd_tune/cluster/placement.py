"""On which nodes trials go (`resources.placement`): onto as few as hold them, or over all."""

from collections.abc import Mapping

import ray
from ray import tune
from ray._private.state import available_resources_per_node
from ray.util.placement_group import PlacementGroup, placement_group

# A resource that the head alone has.
HEAD = "node:__internal_head__"
# The label by which Ray names every node.
NODE_ID = "ray.io/node-id"


class Packed(tune.PlacementGroupFactory):  # type: ignore[misc]
    """A trial's request for the fullest node that still has room; another where that one has died or filled meanwhile.

    Ray chooses the emptiest node for a request of one bundle, whatever strategy it names.
    """

    def to_placement_group(self) -> PlacementGroup:
        """The request, made when the trial is about to start."""
        (bundle,) = self.bundles
        target = fullest(available_resources_per_node(), bundle)
        return placement_group(self.bundles, strategy="STRICT_PACK", _soft_target_node_id=target)


def request(placement: str, cpus: float, gpus: float) -> tune.PlacementGroupFactory:
    """A trial's request for resources.

    Args:
        placement: pack or spread.
        cpus, gpus: of a trial.
    """
    kind = Packed if placement == "pack" else tune.PlacementGroupFactory
    return kind([{"CPU": cpus, "GPU": gpus}])


def fullest(free: Mapping[str, Mapping[str, float]], bundle: Mapping[str, float]) -> str | None:
    """The node with the least of its GPUs, then CPUs, free among those with room for `bundle`; None without any.

    Args:
        free: resources by the node's id.
        bundle: what is asked for; zeros may be left out.
    """
    with_room = [
        node for node, has in free.items() if all(has.get(kind, 0) >= amount for kind, amount in bundle.items())
    ]
    return min(with_room, key=lambda node: (free[node].get("GPU", 0), free[node].get("CPU", 0), node), default=None)


def not_on_head() -> dict[str, str]:
    """The selector of labels for an actor that takes nothing of its node: any but a head that runs no trials.

    Empty where the head runs trials itself, or is all that there is. Ray does not always hear a soft wish for one node
    (`NodeAffinitySchedulingStrategy`) of an actor that asks for no resources, and forgets it once that node has died.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    heads = [str(node["NodeID"]) for node in nodes if HEAD in node["Resources"] and not node["Resources"].get("CPU")]
    workers = [node for node in nodes if HEAD not in node["Resources"] and node["Resources"].get("CPU")]
    return {NODE_ID: f"!{heads[0]}"} if heads and workers else {}
