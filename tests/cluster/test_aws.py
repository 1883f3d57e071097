"""cluster.yaml launched by Ray's own AWS provider on a stand-in for EC2 (moto): what would start, and who gets in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

pytestmark = pytest.mark.slow

_LAUNCH = """
import copy, json, os, sys, time
from pathlib import Path
os.environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-west-2"}
time.sleep = lambda seconds: None  # Ray waits for AWS to spread a new role
import boto3, yaml
from botocore.exceptions import ParamValidationError
from moto import mock_aws
from ray.autoscaler import tags
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

found, types = {}, {}
with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
    config = prepare_config(yaml.safe_load(Path(sys.argv[1]).read_text()))
    validate_config(config)
    config = bootstrap_aws(config)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])

    def create(name, node_config):
        head = name == config["head_node_type"]
        named = {
            tags.TAG_RAY_NODE_KIND: tags.NODE_KIND_HEAD if head else tags.NODE_KIND_WORKER,
            tags.TAG_RAY_NODE_NAME: name, tags.TAG_RAY_USER_NODE_TYPE: name, tags.TAG_RAY_LAUNCH_CONFIG: "none",
            tags.TAG_RAY_NODE_STATUS: "none",
        }
        return provider.create_node(node_config, named, 1)

    for name, one in config["available_node_types"].items():
        create(name, copy.deepcopy(one["node_config"]))
    ec2 = boto3.client("ec2")
    for reservation in ec2.describe_instances()["Reservations"]:
        for machine in reservation["Instances"]:
            named = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
            disk = machine["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
            (volume,) = ec2.describe_volumes(VolumeIds=[disk])["Volumes"]
            types[named[tags.TAG_RAY_USER_NODE_TYPE]] = {
                "type": machine["InstanceType"], "spot": machine.get("InstanceLifecycle") == "spot",
                "disk": volume["Size"], "groups": [group["GroupName"] for group in machine["SecurityGroups"]],
                "key": machine["KeyName"],
            }
    (group,) = ec2.describe_security_groups(GroupNames=["ray-autoscaler-" + config["cluster_name"]])["SecurityGroups"]
    found["open to all"] = [
        [rule.get("FromPort"), rule.get("ToPort")] for rule in group["IpPermissions"] if rule["IpRanges"]
    ]
    for key, value in (("InstanceTyp", "g5.xlarge"), ("BlockDeviceMappings", [{"DeviceNam": "/dev/sda1"}])):
        try:
            create("gpu", copy.deepcopy(config["available_node_types"]["gpu"]["node_config"]) | {key: value})
            found[key] = "taken"
        except ParamValidationError as error:
            found[key] = str(error)
print(json.dumps(found | {"types": types}))
"""


def test_aws_starts_what_the_yaml_says(tmp_path):
    packages = Path(sys.prefix) / "cluster"
    path = os.pathsep.join([str(ROOT), str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Ray makes a key and keeps it in the home folder.
    (tmp_path / ".ssh").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCH, ROOT / "cluster.yaml"], capture_output=True, text=True, timeout=300,
        check=False, env=os.environ | {"HOME": str(tmp_path), "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    same = {"disk": 140, "groups": ["ray-autoscaler-fsd-tune"], "key": "ray-autoscaler_us-west-2"}
    assert found["types"] == {
        "head": {"type": "m6i.xlarge", "spot": False} | same,
        "gpu": {"type": "g5.2xlarge", "spot": False} | same,
        "gpu_spot": {"type": "g5.2xlarge", "spot": True} | same,
    }
    assert found["open to all"] == [[22, 22]], "ssh, and nothing else"
    assert 'Unknown parameter in input: "InstanceTyp"' in found["InstanceTyp"]
    assert 'Unknown parameter in BlockDeviceMappings[0]: "DeviceNam"' in found["BlockDeviceMappings"]
