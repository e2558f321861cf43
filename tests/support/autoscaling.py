"""What Ray's own autoscaler would launch for an actor that waits, by the configuration of a cluster."""

from typing import Any

from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ResourceRequest
from ray.core.generated.common_pb2 import LabelSelectorOperator


def launches(
    config: dict[str, Any], resources: dict[str, float], labels: dict[str, str], num_actors: int
) -> dict[str, int]:
    """Nodes that it would launch on an empty cluster, by node type, without the head.

    Args:
        config: in the cluster launcher's format.
        resources: that each actor takes.
        labels: that each actor asks of its node.
    """
    scaling = AutoscalingConfig(config, skip_content_hash=True)
    waiting = ResourceRequest(resources_bundle=resources)
    selector = waiting.label_selectors.add()
    for key, value in labels.items():
        selector.label_constraints.add(
            label_key=key, operator=LabelSelectorOperator.LABEL_OPERATOR_IN, label_values=[value]
        )
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=scaling.get_node_type_configs(),
            max_num_nodes=scaling.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count([waiting] * num_actors),
        )
    )
    counts = {launch.instance_type: launch.count for launch in reply.to_launch}
    counts.pop(scaling.get_head_node_type(), None)
    return counts
