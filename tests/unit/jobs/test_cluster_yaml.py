"""cluster.yaml: Ray's own schema and autoscaler, and AWS's own description of a launch, say what it would do."""

from typing import Any

import boto3
import botocore.session
import pytest
import yaml
from botocore.stub import ANY, Stubber
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException

from rendermill.jobs.cluster.spot_nodes import SpotOrOnDemand
from tests.support.autoscaling import launches
from tests.support.commands import ROOT

INSTANCE_TYPES = {"images": "g6e.4xlarge", "videos": "p5.4xlarge"}


@pytest.fixture
def config() -> dict[str, Any]:
    return prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    validate_config(config)
    workers = {name: config["available_node_types"][name] for name in INSTANCE_TYPES}
    assert all(group["min_workers"] == 0 < group["max_workers"] for group in workers.values())
    assert {name: group["node_config"]["InstanceType"] for name, group in workers.items()} == INSTANCE_TYPES


def test_aws_knows_every_parameter_of_a_node(config: dict[str, Any]) -> None:
    launch = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for node_type in config["available_node_types"].values():
        given = {"MinCount": 1, "MaxCount": 1, **node_type["node_config"]}
        assert not ParamValidator().validate(given, launch).has_errors()


@pytest.mark.parametrize("group", INSTANCE_TYPES)
def test_a_waiting_actor_brings_a_node_of_its_group(config: dict[str, Any], group: str) -> None:
    config["auth"] = {}
    assert launches(config, {"CPU": 1, "GPU": 1}, {"rendermill.io/group": group}, num_actors=2) == {group: 2}


def test_spot_is_tried_first_and_on_demand_next(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", boto3.Session("key", "secret"))
    provider = SpotOrOnDemand(config["provider"], config["cluster_name"])
    node_config = config["available_node_types"]["videos"]["node_config"] | {"SubnetIds": ["subnet-a", "subnet-b"]}
    spot = dict.fromkeys((*node_config, "MinCount", "MaxCount", "TagSpecifications", "SubnetId"), ANY)
    del spot["SubnetIds"]
    on_demand = {name: value for name, value in spot.items() if name != "InstanceMarketOptions"}
    answer = {"Instances": [{"InstanceId": "i-1", "State": {"Name": "pending"}, "StateReason": {"Message": ""}}]}
    with Stubber(provider.ec2_fail_fast.meta.client) as ec2:
        for _ in range(5):  # Ray's provider tries five times
            ec2.add_client_error("run_instances", "InsufficientInstanceCapacity", expected_params=spot)
        ec2.add_response("run_instances", answer, expected_params=on_demand)
        assert list(provider.create_node(node_config, {}, 1)) == ["i-1"]
        for expected in [spot] * 5 + [on_demand] * 5:
            ec2.add_client_error("run_instances", "InsufficientInstanceCapacity", expected_params=expected)
        with pytest.raises(NodeLaunchException):
            provider.create_node(node_config, {}, 1)
        ec2.assert_no_pending_responses()
