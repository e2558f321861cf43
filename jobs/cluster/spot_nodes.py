"""Nodes on AWS for `ray up`: spot if AWS has any, else on demand. `cluster.yaml` names it as its provider."""

from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

_MARKET = "InstanceMarketOptions"


class SpotOrOnDemand(AWSNodeProvider):
    """Ray's AWS provider, for node types whose `node_config` asks for spot.

    Ray's autoscaler notes when a launched node does not come up, and tries another node type next; of a launch that AWS
    refuses it takes no note, and asks for the same again. So the second choice is made here, launch by launch.
    """

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Launch up to `count` nodes.

        Args:
            node_config: what EC2's RunInstances takes.

        Returns:
            The instances by their id.

        Raises:
            NodeLaunchException: AWS gives none on demand either, in no availability zone.
        """
        try:
            return super().create_node(node_config, tags, count)
        except NodeLaunchException:
            if _MARKET not in node_config:
                raise
        on_demand = {name: value for name, value in node_config.items() if name != _MARKET}
        return super().create_node(on_demand, tags, count)
